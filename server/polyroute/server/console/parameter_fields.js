// The parameters of a request as a person types them, and as `GenerateRequest` has them.

const INT64 = 2n ** 63n;
const MOST_STOPS = 16;

/**
 * The numbers: `key` as in proto3 JSON, and what the server takes (protos/polyroute/v1/inference.proto). `above` is a
 * lower end that is not taken itself.
 */
export const NUMBERS = [
  { key: "maxTokens", label: "Max tokens", integer: true, min: 1 },
  { key: "temperature", label: "Temperature", min: 0, max: 100, step: 0.1 },
  { key: "topP", label: "Top p", above: 0, max: 1, step: 0.05 },
  { key: "topK", label: "Top k", integer: true, min: 0 },
  { key: "minP", label: "Min p", min: 0, max: 1, step: 0.05 },
  { key: "repetitionPenalty", label: "Repetition penalty", above: 0, max: 100, step: 0.1, none: 1 },
  { key: "presencePenalty", label: "Presence penalty", min: -2, max: 2, step: 0.1, none: 0 },
  { key: "frequencyPenalty", label: "Frequency penalty", min: -2, max: 2, step: 0.1, none: 0 },
];

/** What a request may ask of the cache: the value of `CacheOptions.mode`, and words. */
export const CACHE_MODES = [
  ["", "as configured"],
  ["CACHE_MODE_BYPASS", "bypass: neither read nor write"],
  ["CACHE_MODE_REFRESH", "refresh: run and store anew"],
  ["CACHE_MODE_ONLY_IF_CACHED", "only if cached"],
];

/** How an answer may be constrained: the field of `ResponseFormat`, words, and what is typed for it. */
export const FORMATS = [
  ["", "free text", ""],
  ["jsonSchema", "JSON schema", '{"type": "object", "properties": {"name": {"type": "string"}}}'],
  ["regex", "regular expression", "[0-9]{4}-[0-9]{2}-[0-9]{2}"],
  ["choice", "one of a list", "yes\nno"],
];

/**
 * Reads what was typed, strings by key. Returns `{fields, problems}`: the fields of a `GenerateRequest`, without those
 * that were left empty, and what is wrong by key, in words.
 */
export function readParameters(typed) {
  const fields = {};
  const problems = {};
  for (const field of NUMBERS) {
    const text = (typed[field.key] ?? "").trim();
    if (!text) continue;
    const problem = numberProblem(field, text);
    if (problem) problems[field.key] = problem;
    else fields[field.key] = Number(text);
  }
  const seed = (typed.seed ?? "").trim();
  if (seed && seedProblem(seed)) problems.seed = seedProblem(seed);
  else if (seed) fields.seed = seed; // 64 bits: a string in JSON
  const stops = linesOf(typed.stop).map(withEscapes);
  if (stops.length > MOST_STOPS) problems.stop = `${stops.length} strings; at most ${MOST_STOPS}`;
  else if (stops.length > 0) fields.stop = stops;
  if (typed.cacheMode) fields.cache = { mode: typed.cacheMode };
  readFormat(typed, fields, problems);
  readRouting(typed, fields);
  return { fields, problems };
}

function numberProblem({ integer, min, above, max }, text) {
  const number = Number(text);
  if (!Number.isFinite(number)) return `“${text}” is no number`;
  if (integer && !Number.isInteger(number)) return `${text}; must be a whole number`;
  if (above !== undefined && number <= above) return `${text}; must be above ${above}`;
  if (min !== undefined && number < min) return `${text}; must be at least ${min}`;
  if (max !== undefined && number > max) return `${text}; must be at most ${max}`;
  if (integer && number > 2 ** 31 - 1) return `${text}; must be at most ${2 ** 31 - 1}`;
  return "";
}

function seedProblem(text) {
  if (!/^[+-]?\d+$/.test(text)) return `“${text}” is no whole number`;
  const seed = BigInt(text.replace("+", ""));
  return seed >= -INT64 && seed < INT64 ? "" : `${text}; must fit in 64 bits`;
}

function readFormat({ format, formatText = "" }, fields, problems) {
  if (!format) return;
  if (!formatText.trim()) {
    problems.formatText = "must not be empty";
  } else if (format === "choice") {
    fields.responseFormat = { choice: { choices: linesOf(formatText) } };
  } else {
    if (format === "jsonSchema") {
      try {
        JSON.parse(formatText);
      } catch (error) {
        problems.formatText = `is no JSON: ${error.message}`;
        return;
      }
    }
    fields.responseFormat = { [format]: formatText };
  }
}

function readRouting(typed, fields) {
  const routing = {};
  for (const key of ["variant", "user", "session", "affinityKey"]) {
    if (typed[key]?.trim()) routing[key] = typed[key].trim();
  }
  for (const key of ["noFallback", "noShadow"]) if (typed[key]) routing[key] = true;
  if (Object.keys(routing).length > 0) fields.routing = routing;
}

function linesOf(text) {
  return (text ?? "").split("\n").filter((line) => line !== "");
}

function withEscapes(line) {
  return line.replace(/\\(n|t|\\)/g, (_, sign) => ({ n: "\n", t: "\t", "\\": "\\" })[sign]);
}
