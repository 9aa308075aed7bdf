// One answer, from the request to its end.

import { stream } from "./api.js";
import { oncePerFrame } from "./frames.js";

const LEAST_MS = 20; // a stored answer has no speed

/**
 * @typedef {object} Answer
 * @property {object} request the `GenerateRequest` that was sent, as proto3 JSON
 * @property {"streaming"|"done"|"stopped"|"failed"} state
 * @property {string} text
 * @property {object[]} toolCalls `{id, name, arguments, index}`, the arguments complete once the answer is
 * @property {object[]} logprobs
 * @property {import("./api.js").ApiError|null} error why it failed
 * @property {object|null} startRoute the `Route` that the stream began with
 * @property {object|null} route the newest `Route` known
 * @property {object|null} usage
 * @property {object|null} timing
 * @property {string} finishReason
 * @property {string|null} seed the seed that was used
 * @property {number|null} firstTokenMs from sending to the first text, as this page saw it
 * @property {number} startedAt Unix time in milliseconds
 * @property {number|null} endedAt Unix time in milliseconds
 * @property {string} requestId
 */

/** An answer that has just been asked for. */
export function newAnswer(request) {
  return {
    request,
    state: "streaming",
    text: "",
    toolCalls: [],
    logprobs: [],
    error: null,
    startRoute: null,
    route: null,
    usage: null,
    timing: null,
    finishReason: "",
    seed: null,
    firstTokenMs: null,
    startedAt: Date.now(),
    endedAt: null,
    requestId: "",
  };
}

/**
 * Asks, and returns the complete `Answer`; never throws. `onChange(answer)` is called with a fresh object at most once
 * a frame while it streams, and once at its end. What `signal` aborts ends as `stopped`.
 */
export async function ask(request, { signal, onChange } = {}) {
  const answer = newAnswer(request);
  const begun = performance.now();
  const changed = oncePerFrame(() => answer.state === "streaming" && onChange?.({ ...answer }));
  onChange?.({ ...answer });
  try {
    await stream(request, {
      signal,
      onHeaders: (headers) => (answer.requestId = headers.get("X-Request-ID") ?? ""),
      onEvent(event) {
        if (answer.firstTokenMs === null && event.delta) answer.firstTokenMs = performance.now() - begun;
        take(answer, event);
        changed();
      },
    });
    answer.state = "done";
  } catch (error) {
    answer.state = error.name === "AbortError" ? "stopped" : "failed";
    if (answer.state === "failed") {
      answer.error = error;
      answer.requestId ||= error.requestId ?? "";
    }
  }
  answer.endedAt = answer.startedAt + Math.round(performance.now() - begun);
  const ended = { ...answer };
  onChange?.(ended);
  return ended;
}

/** Tokens a second after the first one; null where they are too few to tell, or came at once. */
export function tokensPerSecond(answer) {
  const tokens = Number(answer.usage?.completionTokens ?? 0);
  const lasted = answer.endedAt - answer.startedAt - answer.firstTokenMs;
  return tokens > 1 && answer.firstTokenMs !== null && lasted >= LEAST_MS ? ((tokens - 1) * 1000) / lasted : null;
}

/** Puts one `GenerateEvent` into the answer. */
export function take(answer, { start, delta, end }) {
  if (start) {
    answer.requestId = start.requestId ?? answer.requestId;
    answer.startRoute = start.route ?? null;
    answer.route = start.route ?? null;
  } else if (delta) {
    if (delta.text) answer.text += delta.text;
    for (const part of delta.toolCalls ?? []) answer.toolCalls = withPart(answer.toolCalls, part);
    if (delta.logprobs) answer.logprobs = [...answer.logprobs, ...delta.logprobs];
  } else if (end) {
    answer.finishReason = end.finishReason ?? "";
    answer.usage = end.usage ?? null;
    answer.timing = end.timing ?? null;
    answer.seed = end.seed ?? null;
    answer.route = end.route ?? answer.route;
  }
}

function withPart(calls, part) {
  const index = part.index ?? 0;
  const known = calls.find((call) => call.index === index);
  if (!known) return [...calls, { id: "", name: "", arguments: "", ...part, index }];
  const grown = {
    ...known,
    id: part.id || known.id,
    name: part.name || known.name,
    arguments: known.arguments + (part.arguments ?? ""),
  };
  return calls.map((call) => (call === known ? grown : call));
}
