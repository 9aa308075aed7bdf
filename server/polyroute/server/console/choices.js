// The choices that the picker offers: in groups, or by how well they fit what was typed.

import { recallJson, rememberJson } from "./memory.js";
import { createStore } from "./store.js";
import { fit } from "./fuzzy.js";

const RECENT_MOST = 5;
const SHOWN_MOST = 100; // of thousands of models, the first; typing finds the others
const LIKED = 4; // what a favourite is ahead by, as in `fit`
const KINDS = [
  ["local", "Local"],
  ["remote", "Remote"],
  ["route", "Routes"],
];

/** IDs of the favourites, in the order in which they were marked. */
export const favourites = createStore(ids("favourites"));

/** IDs of the models chosen last, the last one first. */
export const recents = createStore(ids("recents"));

function ids(key) {
  const kept = recallJson(key, []);
  return Array.isArray(kept) ? kept.filter((id) => typeof id === "string") : [];
}

/** Marks a favourite, or no longer. */
export function toggleFavourite(id) {
  const now = favourites.get();
  favourites.set(now.includes(id) ? now.filter((each) => each !== id) : [...now, id]);
  rememberJson("favourites", favourites.get());
}

/** Notes that a model was chosen. */
export function noteChoice(id) {
  recents.set([id, ...recents.get().filter((each) => each !== id)].slice(0, RECENT_MOST));
  rememberJson("recents", recents.get());
}

/**
 * Groups of choices, `{name, choices: [{entry, at}]}`, `at` as in `fit`, and how many more there are:
 * `{groups, more}`. Each entry stands in one group. Without a query: favourites, recent ones, then the others by kind.
 */
export function choicesOf(entries, query, liked, recent) {
  const groups = query.trim() ? [fitting(entries, query, liked)] : grouped(entries, liked, recent);
  let left = SHOWN_MOST;
  let more = 0;
  for (const group of groups) {
    more += Math.max(0, group.choices.length - left);
    group.choices = group.choices.slice(0, left);
    left -= group.choices.length;
  }
  return { groups: groups.filter(({ choices }) => choices.length > 0), more };
}

function fitting(entries, query, liked) {
  const found = [];
  for (const entry of entries) {
    const fitted = fit(query, entry.id);
    if (fitted) found.push({ entry, at: fitted.at, score: fitted.score + (liked.includes(entry.id) ? LIKED : 0) });
  }
  found.sort((one, other) => other.score - one.score || one.entry.id.localeCompare(other.entry.id));
  return { name: "Best matches", choices: found };
}

function grouped(entries, liked, recent) {
  const byId = new Map(entries.map((entry) => [entry.id, entry]));
  const taken = new Set();
  const take = (name, some) => {
    const choices = [];
    for (const entry of some) {
      if (!entry || taken.has(entry.id)) continue;
      taken.add(entry.id);
      choices.push({ entry, at: [] });
    }
    return { name, choices };
  };
  return [
    take("Favourites", liked.map((id) => byId.get(id))),
    take("Recent", recent.map((id) => byId.get(id))),
    ...KINDS.map(([kind, name]) => take(name, entries.filter((entry) => entry.kind === kind))),
  ];
}
