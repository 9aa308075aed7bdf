// An estimate and its interval, drawn on a scale that several share.

import { html } from "../preact.js";

/** `{low, high}` that holds all finite bounds of intervals `{value, lower, upper}`, and `zero` where that is wanted. */
export function scaleOf(intervals, zero) {
  const all = intervals.flatMap(({ value, lower, upper }) => [value, lower, upper]).filter(Number.isFinite);
  if (zero) all.push(0);
  if (all.length === 0) return { low: 0, high: 1 };
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return { low: low - room, high: high + room };
}

/** The drawing; `text` says the same in words. `zero` draws a line at 0, `tone` is `good`, `bad` or empty. */
export function Interval({ value, lower, upper, scale, zero, tone = "", text }) {
  const x = (number) => {
    const bounded = Math.min(scale.high, Math.max(scale.low, number));
    return (100 * (bounded - scale.low)) / (scale.high - scale.low);
  };
  const known = Number.isFinite(value);
  return html`
    <svg class=${`interval ${tone}`} viewBox="0 0 100 20" preserveAspectRatio="none" role="img" aria-label=${text}>
      ${zero && html`<line class="interval-zero" x1=${x(0)} x2=${x(0)} y1="0" y2="20" />`}
      ${known && html`<line class="interval-range" x1=${x(lower)} x2=${x(upper)} y1="10" y2="10" />`}
      ${known && html`<line class="interval-value" x1=${x(value)} x2=${x(value)} y1="3" y2="17" />`}
    </svg>
  `;
}
