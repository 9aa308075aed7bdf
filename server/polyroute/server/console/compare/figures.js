// The figures of an answer, and which of several are best.

import { tokensPerSecond } from "../answer.js";
import { html } from "../preact.js";
import { span } from "../why/times.js";

const CACHE = {
  CACHE_RESULT_MISS: "miss",
  CACHE_RESULT_HIT: "hit",
  CACHE_RESULT_COALESCED: "shared run",
  CACHE_RESULT_BYPASS: "not asked",
};

/** The figures of `answer`; what is best among `answers`, and not best in all of them, is marked. */
export function Figures({ answer, answers }) {
  const firstToken = bestOf(answers, ({ firstTokenMs }) => firstTokenMs, Math.min);
  const speed = bestOf(answers, tokensPerSecond, Math.max);
  const mine = tokensPerSecond(answer);
  return html`
    <dl class="figures numbers">
      <${Figure} name="First token" best=${answer.firstTokenMs === firstToken}>
        ${answer.firstTokenMs === null ? "–" : span(answer.firstTokenMs)}
      <//>
      <${Figure} name="Speed" best=${mine !== null && mine === speed}>
        ${mine === null ? "–" : `${mine >= 10 ? Math.round(mine) : mine.toFixed(1)} tokens/s`}
      <//>
      <${Figure} name="Tokens">
        ${answer.usage ? `${answer.usage.promptTokens ?? 0} + ${answer.usage.completionTokens ?? 0}` : "–"}
      <//>
      <${Figure} name="Total">${answer.endedAt ? span(answer.endedAt - answer.startedAt) : "–"}<//>
      <${Figure} name="Cache">${CACHE[answer.route?.cache] ?? "–"}<//>
      <${Figure} name="Route"><bdi>${wayOf(answer.route)}</bdi><//>
    </dl>
  `;
}

function Figure({ name, best = false, children }) {
  return html`
    <div class=${best ? "best" : ""}>
      <dt>${name}</dt>
      <dd>${children}${best && html` <span class="best-mark">best</span>`}</dd>
    </div>
  `;
}

function bestOf(answers, figure, choose) {
  const known = answers.filter(({ state }) => state === "done").map(figure);
  const numbers = known.filter((each) => each !== null);
  if (numbers.length < 2 || new Set(numbers).size === 1) return undefined;
  return choose(...numbers);
}

function wayOf(route) {
  if (!route) return "–";
  const way = [route.requested, route.variant, route.model].filter(Boolean);
  return way.filter((name, at) => name !== way[at - 1]).join(" → ");
}
