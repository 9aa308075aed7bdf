// A vote on answers whose names were hidden, and what becomes of it.

import { call } from "../api.js";

/** The metric that votes are kept as: see docs/experiments.md. */
export const METRIC = "preferred";

/** The vote for all alike. */
export const TIE = "tie";
/** The vote for none. */
export const NONE = "none";

/** Each answer's part of a vote: 1 for the one that was chosen; a tie divides it, and none leaves nothing. */
export function partsOf(vote, count) {
  return Array.from({ length: count }, (_, at) => {
    if (vote === TIE) return 1 / count;
    return vote === at ? 1 : 0;
  });
}

/** The route of which all these answers are variants, each another one; null where they are not of one experiment. */
export function experimentOf(answers) {
  const routes = new Set(answers.map(({ route }) => route?.requested));
  const variants = new Set(answers.map(({ route }) => route?.variant));
  const [route] = routes;
  if (routes.size !== 1 || !route || variants.has(undefined) || variants.has("")) return null;
  return variants.size === answers.length ? route : null;
}

/** Keeps a vote as feedback on each answer. Throws `ApiError`; sending it again changes nothing. */
export async function recordVote(answers, vote) {
  const parts = partsOf(vote, answers.length);
  await Promise.all(
    answers.map(({ requestId }, at) =>
      call("InferenceService", "RecordFeedback", { requestId, metric: METRIC, numberValue: parts[at] }),
    ),
  );
}

/** The numbers from 0 to `count` - 1 in an order that nobody can foresee. */
export function shuffled(count) {
  const numbers = [...Array(count).keys()];
  for (let last = count - 1; last > 0; last -= 1) {
    const at = below(last + 1);
    [numbers[last], numbers[at]] = [numbers[at], numbers[last]];
  }
  return numbers;
}

function below(limit) {
  // the remainder of 32 bits favours nobody noticeably among four
  return crypto.getRandomValues(new Uint32Array(1))[0] % limit;
}
