// Numbers and times, for people.

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"];
const NONE = "–";

/** A number of proto3 JSON: 64-bit ones are strings there, and one that is absent is 0. */
export function num(value) {
  return value === undefined || value === null ? 0 : Number(value);
}

/** A number in few digits; what is none is a dash. */
export function short(value) {
  if (value === null || !Number.isFinite(value)) return value === Infinity ? "∞" : value === -Infinity ? "−∞" : NONE;
  const size = Math.abs(value);
  if (size < 1e-6) return "0"; // what is left of arithmetic
  if (size >= 1_000_000) return `${trimmed(value / 1_000_000)}M`;
  if (size >= 10_000) return `${trimmed(value / 1_000)}k`;
  if (size >= 100 || Number.isInteger(value)) return String(Math.round(value)).replace("-", "−");
  return trimmed(value);
}

function trimmed(value) {
  const text = Math.abs(value) >= 10 ? value.toFixed(1) : Number(value.toPrecision(3)).toString();
  return text.replace("-", "−");
}

/** A whole number with its thousands apart. */
export function count(value) {
  return num(value).toLocaleString("en-US");
}

/** A part of 1 in percent. */
export function percent(value) {
  if (value === null || !Number.isFinite(value)) return NONE;
  const points = value * 100;
  return `${points !== 0 && Math.abs(points) < 10 ? Number(points.toFixed(1)) : Math.round(points)}%`;
}

/** Bytes in the largest unit that they fill. */
export function bytes(value) {
  let left = num(value);
  let unit = 0;
  while (left >= 1024 && unit < SIZES.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? left : Number(left.toFixed(1))} ${SIZES[unit]}`;
}

/** Seconds, from milliseconds to days. */
export function seconds(value) {
  if (value === null || !Number.isFinite(value)) return NONE;
  if (value < 1) return `${Number((value * 1000).toPrecision(3))} ms`;
  if (value < 120) return `${Number(value.toPrecision(3))} s`;
  if (value < 3600) return `${Math.round(value / 60)} min`;
  return value < 172_800 ? `${Number((value / 3600).toFixed(1))} h` : `${Math.round(value / 86_400)} days`;
}

/** A `google.protobuf.Duration` of proto3 JSON (`"1.500s"`) in seconds. */
export function lasted(duration) {
  return duration ? Number.parseFloat(duration) : 0;
}

/** A value of a metric in its unit, as reports have them: `s`, `tokens`, `1`; a rate in percent. */
export function inUnit(value, unit, metric = "") {
  if (!Number.isFinite(value)) return short(value);
  const sign = value < 0 ? "−" : "";
  if (unit === "s") return sign + seconds(Math.abs(value));
  if (metric.endsWith("_rate")) return sign + percent(Math.abs(value));
  return short(value);
}

/** The name of a metric, for people: `first_token_s` is `first token`. */
export function metricName(metric) {
  return metric.replace(/_s$/, "").replaceAll("_", " ");
}

/** A time of proto3 JSON as the visitor's clock and calendar have it; today's without the day. */
export function moment(time, now = new Date()) {
  if (!time) return NONE;
  const at = new Date(time);
  const clock = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return at.toDateString() === now.toDateString() ? clock : `${at.toLocaleDateString()} ${clock}`;
}

/** A value of an enum in words: `ROLLOUT_STATE_ROLLED_BACK` is `rolled back`. */
export function word(value, prefix) {
  return (value ?? "").replace(prefix, "").toLowerCase().replaceAll("_", " ") || "unknown";
}
