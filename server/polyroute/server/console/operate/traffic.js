// What calls did, by model: the difference between two scrapes, and the figures of a stretch of them.

const REQUESTS = "polyroute_requests_total";
const DURATION = "gen_ai_server_request_duration_seconds_bucket";
const FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds_bucket";
const TOKENS = "gen_ai_client_token_usage_sum";
const IN_USE = "polyroute_permits_in_use";
const QUEUED = "polyroute_queued";

/** Names of the samples that are looked at. */
export const NEEDED = [REQUESTS, DURATION, FIRST_TOKEN, TOKENS, IN_USE, QUEUED];

const OF_THE_CACHE = ["hit", "coalesced"];
const NO_ERROR = ["ok", "CANCELLED"]; // a caller that left is none

/** The key of all models together. */
export const ALL = "";

/**
 * What happened between two scrapes, by model, and under `ALL`: `{calls, errors, hits, tokens, inFlight, queued,
 * duration, first}`; the last two count values by upper bound. Models where nothing is going on are left out. A counter
 * that has become smaller has begun anew, with its server.
 */
export function changes(before, scraped) {
  const now = scraped.filter(({ name }) => NEEDED.includes(name));
  const known = new Map(before.map(({ key, value }) => [key, value]));
  const grown = now.map(({ name, value, key }) => {
    const was = name === IN_USE || name === QUEUED ? 0 : (known.get(key) ?? 0);
    return value < was ? value : value - was;
  });
  const by = new Map([[ALL, nothing()]]);
  now.forEach(({ labels }, i) => grown[i] > 0 && by.set(modelOf(labels), nothing()));
  now.forEach(({ name, labels }, i) => {
    const model = modelOf(labels);
    if (!by.has(model)) return;
    // a bucket that did not grow still bounds the next one from below
    add(by.get(ALL), name, labels, grown[i]);
    if (model !== ALL) add(by.get(model), name, labels, grown[i]);
  });
  return by;
}

function modelOf(labels) {
  return labels.model ?? labels.deployment ?? labels.gen_ai_response_model ?? ALL;
}

function nothing() {
  return { calls: 0, errors: 0, hits: 0, tokens: 0, inFlight: 0, queued: 0, duration: {}, first: {} };
}

function add(into, name, labels, grown) {
  if (name === REQUESTS) {
    into.calls += grown;
    if (OF_THE_CACHE.includes(labels.cache)) into.hits += grown;
    if (!NO_ERROR.includes(labels.outcome)) into.errors += grown;
  } else if (name === TOKENS) {
    if (labels.gen_ai_token_type === "output" && !OF_THE_CACHE.includes(labels.cache)) into.tokens += grown;
  } else if (name === IN_USE) into.inFlight += grown;
  else if (name === QUEUED) into.queued += grown;
  else {
    const buckets = name === DURATION ? into.duration : into.first;
    buckets[labels.le] = (buckets[labels.le] ?? 0) + grown;
  }
}

/**
 * The figures of one model for charts, a value a point: each stands for the `stretch` of points that ends with it. What
 * depends on calls is null where none ended. `points` are `{at, seconds, by}`, `by` as `changes` makes it; one whose
 * `by` is null is a gap.
 */
export function seriesOf(points, model, stretch) {
  const made = { at: [], calls: [], errors: [], p50: [], p95: [], first50: [], first95: [], tokens: [], inFlight: [] };
  Object.assign(made, { queued: [], hits: [] });
  points.forEach(({ at, by }, i) => {
    const told = by === null ? null : figures(points.slice(Math.max(0, i - stretch + 1), i + 1), model);
    made.at.push(at);
    for (const name of Object.keys(made)) if (name !== "at") made[name].push(told === null ? null : told[name]);
  });
  return made;
}

function figures(points, model) {
  const sum = nothing();
  let over = 0;
  for (const { by, seconds } of points) {
    if (by === null) continue;
    over += seconds;
    const one = by.get(model);
    if (!one) continue;
    for (const name of ["calls", "errors", "hits", "tokens"]) sum[name] += one[name];
    for (const name of ["duration", "first"]) merge(sum[name], one[name]);
  }
  const last = points.at(-1).by.get(model);
  return {
    calls: sum.calls / over,
    errors: sum.errors / over,
    tokens: sum.tokens / over,
    p50: quantile(0.5, sum.duration),
    p95: quantile(0.95, sum.duration),
    first50: quantile(0.5, sum.first),
    first95: quantile(0.95, sum.first),
    inFlight: last?.inFlight ?? 0,
    queued: last?.queued ?? 0,
    hits: sum.calls > 0 ? sum.hits / sum.calls : null,
  };
}

function merge(into, buckets) {
  for (const [bound, grown] of Object.entries(buckets)) into[bound] = (into[bound] ?? 0) + grown;
}

/**
 * A quantile of a histogram, as PromQL's `histogram_quantile` has it: linear within the bucket that it falls into.
 * `buckets` say how many values were no larger than each bound. Null where there are no values; the highest finite
 * bound where it lies beyond.
 */
export function quantile(q, buckets) {
  const ordered = Object.entries(buckets)
    .map(([bound, below]) => [bound === "+Inf" ? Infinity : Number(bound), below])
    .sort(([a], [b]) => a - b);
  const whole = ordered.at(-1)?.[1] ?? 0;
  if (whole <= 0) return null;
  const rank = q * whole;
  let lower = 0;
  let below = 0;
  for (const [bound, upTo] of ordered) {
    if (upTo >= rank) {
      if (bound === Infinity) return lower;
      return upTo === below ? bound : lower + ((bound - lower) * (rank - below)) / (upTo - below);
    }
    [lower, below] = [bound, upTo];
  }
  return lower;
}
