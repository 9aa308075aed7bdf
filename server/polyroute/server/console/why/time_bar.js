// Where the time of an answer went, as a bar.

import { html } from "../preact.js";
import { LEAST_MS, msOf, span } from "./times.js";

/** The parts of a `Timing`: waiting for a permit, to the first token, and from there to the end. */
export function TimeBar({ timing }) {
  const parts = partsOf(timing);
  const total = parts.reduce((sum, { ms }) => sum + ms, 0);
  if (total === 0) return null;
  let at = 0;
  const bars = parts.map(({ name, ms }) => {
    const width = (100 * ms) / total;
    at += width;
    return html`<rect key=${name} class=${name} x=${at - width} y="0" width=${width} height="4" />`;
  });
  return html`
    <div class="time-bar">
      <svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">${bars}</svg>
      <ul>${parts.map(({ name, what, ms }) => html`<li key=${name} class=${name}>${span(ms)} ${what}</li>`)}</ul>
    </div>
  `;
}

function partsOf({ queue, firstToken, total }) {
  return [
    { name: "queue", what: "in the queue", ms: msOf(queue) },
    { name: "first", what: "to the first token", ms: Math.max(0, msOf(firstToken) - msOf(queue)) },
    { name: "rest", what: "writing", ms: Math.max(0, msOf(total) - msOf(firstToken)) },
  ].filter(({ ms }) => ms >= LEAST_MS);
}
