// Times of the protocol, for people.

/** What is shorter is told as none. */
export const LEAST_MS = 0.05;

/** A duration of the protocol (`0.012s`) in milliseconds; what is absent took none. */
export function msOf(duration) {
  return duration ? Number.parseFloat(duration) * 1_000 : 0;
}

/** A span of time in milliseconds, in words: `0.3 ms`, `42 ms`, `1.25 s`. */
export function span(ms) {
  if (ms >= 1_000) return `${(ms / 1_000).toFixed(2)} s`;
  return ms >= 10 || ms < LEAST_MS ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`;
}

/** How long ago something was, in words, from milliseconds. */
export function age(ms) {
  const units = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1_000]];
  const [unit, size] = units.find(([, each]) => ms >= each) ?? ["s", 1_000];
  return `${Math.floor(ms / size)} ${unit}`;
}
