// Why an answer went the way that it did, as steps; and the way that a request would go.

import { html } from "./preact.js";
import { WordedCode } from "./why/words.js";
import { routeSteps, stepsOf } from "./why/steps.js";
import { TimeBar } from "./why/time_bar.js";

/** The way of an `Answer` (answer.js), folded away until it is wanted. */
export function Why({ answer }) {
  const { route, timing } = answer;
  return html`
    <details class="why">
      <summary>Why this way<span class="why-brief"><bdi>${briefly(answer)}</bdi></span></summary>
      <${Steps} steps=${stepsOf(answer)} label="The way of this answer" />
      ${timing && html`<${TimeBar} timing=${timing} />`}
      ${upstreams(route).map(
        (upstream, at) => html`
          <p class="why-upstream">${at === 0 ? "The peer is a router too; there:" : "And at its own peer:"}</p>
          <${Steps} steps=${routeSteps(upstream)} label="The way at the peer" />
        `,
      )}
    </details>
  `;
}

/** A list of `Step`s (why/steps.js). */
export function Steps({ steps, label }) {
  return html`
    <ol class="way" aria-label=${label}>
      ${steps.map(
        ({ name, told, tone, notes, point, code }, at) => html`
          <li key=${at} class=${tone}>
            <span class="step-name">${name}</span>
            <div class="step-told">
              <p><${WordedCode} text=${told} /></p>
              ${notes.map((note) => html`<p class="soft"><${WordedCode} text=${note} /></p>`)}
              ${point !== null && html`<${HashPoint} point=${point} />`}
              ${code && html`<p><code class="step-code">${code}</code></p>`}
            </div>
          </li>
        `,
      )}
    </ol>
  `;
}

// Where a key fell on the line from 0 to 1.
function HashPoint({ point }) {
  return html`
    <svg class="hash-point" viewBox="0 0 100 8" role="img" aria-label=${`Hash point ${point.toFixed(3)} between 0 and 1`}>
      <line x1="1" y1="4" x2="99" y2="4" /><circle cx=${1 + point * 98} cy="4" r="3" />
    </svg>
  `;
}

function upstreams(route) {
  const found = [];
  for (let at = route?.upstream; at; at = at.upstream) found.push(at);
  return found;
}

function briefly({ route, error }) {
  if (!route) return error?.reason || error?.code || "";
  const failed = (route.attempts ?? []).filter((attempt) => attempt.error).length;
  const way = [route.requested, route.variant, route.model].filter(Boolean);
  const told = [way.filter((name, at) => name !== way[at - 1]).join(" → ")];
  if (failed > 0) told.push(failed === 1 ? "1 failed attempt" : `${failed} failed attempts`);
  if (route.cache === "CACHE_RESULT_HIT") told.push("cache hit");
  return told.join(" · ");
}
