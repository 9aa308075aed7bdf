// One answer as it stands: its text, its tool calls, what went wrong, and its figures.

import { tokensPerSecond } from "./answer.js";
import { CopyAs } from "./copy_as.js";
import { html } from "./preact.js";
import { Rendered } from "./markdown.js";
import { Why } from "./why.js";

const ENDS = {
  FINISH_REASON_STOP_SEQUENCE: "stop string",
  FINISH_REASON_LENGTH: "length limit",
  FINISH_REASON_CONTENT_FILTER: "content filter",
  FINISH_REASON_TOOL_CALLS: "tool calls",
};

const CACHE = {
  CACHE_RESULT_HIT: "cache hit",
  CACHE_RESULT_COALESCED: "shared run",
};

/** Shows an `Answer` (answer.js). */
export function AnswerView({ answer }) {
  const streaming = answer.state === "streaming";
  return html`
    <div class="answer" aria-busy=${streaming}>
      ${answer.text && html`<${Rendered} text=${answer.text} streaming=${streaming} />`}
      ${answer.toolCalls.map((call) => html`<${ToolCall} key=${call.index} call=${call} />`)}
      ${streaming && !answer.text && html`<p class="soft waiting">Waiting for the first token…</p>`}
      ${answer.state === "done" && !answer.text && answer.toolCalls.length === 0 && html`<p class="soft">An empty answer.</p>`}
      ${answer.error && html`<${Failure} error=${answer.error} />`}
      ${!streaming && html`<p class="answer-facts numbers">${factsOf(answer).join(" · ")}</p>`}
      ${!streaming && html`<${Why} answer=${answer} /><${CopyAs} answer=${answer} />`}
    </div>
  `;
}

function ToolCall({ call }) {
  return html`
    <figure class="tool-call">
      <figcaption>Calls <code>${call.name || "…"}</code></figcaption>
      <pre tabindex="0"><code>${pretty(call.arguments)}</code></pre>
    </figure>
  `;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // not complete, or no JSON
  }
}

/** Shows an error: an `ApiError`, or one that was kept. */
export function Failure({ error }) {
  const told = [error.reason || error.code, error.field && `field ${error.field}`];
  if (error.requestId) told.push(`request ${error.requestId}`);
  if (error.retryAfterS) told.push(`try again in ${Math.ceil(error.retryAfterS)} s`);
  return html`
    <div class="alert" role="alert">
      <p><bdi>${error.message}</bdi></p>
      <p class="small">${told.filter(Boolean).join(" · ")}</p>
    </div>
  `;
}

/** The figures of an answer that has ended, in words: who answered, how fast, how much, how it ended. */
export function factsOf(answer) {
  const facts = [];
  const route = answer.route;
  if (route?.model) facts.push(route.variant ? `${route.model} (${route.variant})` : route.model);
  if (CACHE[route?.cache]) facts.push(CACHE[route.cache]);
  if (answer.firstTokenMs !== null) facts.push(`first token ${inSeconds(answer.firstTokenMs)}`);
  if (answer.endedAt) facts.push(`total ${inSeconds(answer.endedAt - answer.startedAt)}`);
  const speed = tokensPerSecond(answer);
  if (speed !== null) facts.push(`${speed >= 10 ? Math.round(speed) : speed.toFixed(1)} tokens/s`);
  if (answer.usage) {
    facts.push(`${answer.usage.promptTokens ?? 0} + ${answer.usage.completionTokens ?? 0} tokens`);
  }
  if (answer.seed !== null) facts.push(`seed ${answer.seed}`);
  if (answer.state === "stopped") facts.push("stopped");
  else if (ENDS[answer.finishReason]) facts.push(`ended by ${ENDS[answer.finishReason]}`);
  return facts;
}

/** A time in milliseconds, for people. */
export function inSeconds(ms) {
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(2)} s`;
}
