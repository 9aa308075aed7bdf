// What is worth knowing of a model at a glance.

/**
 * @typedef {object} Badge
 * @property {string} text
 * @property {"good"|"busy"|"quiet"|"bad"|"new"} tone
 * @property {string} title what it means, in words
 */

const STATES = {
  warm: { text: "warm", tone: "good", title: "answers at once" },
  loading: { text: "loading", tone: "busy", title: "is being loaded, or not yet reached" },
  cold: { text: "cold", tone: "quiet", title: "not loaded; the first call loads it" },
  draining: { text: "draining", tone: "busy", title: "finishes its calls and takes no new ones" },
  failed: { text: "unhealthy", tone: "bad", title: "could not be loaded or reached" },
  unknown: { text: "unknown", tone: "quiet", title: "its state is not known" },
};

/** The badges of an entry of `models`, its state first. Returns `Badge[]`. */
export function badgesOf(entry) {
  const state = STATES[entry.state] ?? STATES.unknown;
  const badges = [{ ...state, title: entry.detail ? `${state.title}: ${entry.detail}` : state.title }];
  const progress = entry.state === "loading" ? progressOf(entry.detail) : null;
  if (progress !== null) badges[0].text = `loading ${progress}%`;
  const down = entry.replicas.filter((replica) => replica.state === "MODEL_STATE_FAILED").length;
  if (down > 0 && entry.state !== "failed") {
    badges.push({
      text: `${down} of ${entry.replicas.length} down`,
      tone: "bad",
      title: "replicas that cannot be reached",
    });
  }
  if (entry.queued > 0) {
    badges.push({ text: `queue ${entry.queued}`, tone: "busy", title: `waiting for a permit; limit ${entry.maxQueue}` });
  }
  if (entry.rollout) {
    const share = Math.round((entry.rollout.weight ?? 0) * 100);
    badges.push({
      text: `rollout ${share}%`,
      tone: "new",
      title: `variant ${entry.rollout.to} has ${share}% of the traffic; ${entry.rollout.held ? "it is held there" : "more will follow"}`,
    });
  }
  return badges;
}

/** The percentage in words such as `40 of 269 MB`; null where there is none. */
export function progressOf(detail) {
  const found = /([\d.,]+)\s*(?:[kMG]i?B)?\s+of\s+([\d.,]+)/.exec(detail);
  if (!found) return null;
  const [done, whole] = [found[1], found[2]].map((number) => Number(number.replaceAll(",", "")));
  return whole > 0 && done <= whole ? Math.floor((100 * done) / whole) : null;
}
