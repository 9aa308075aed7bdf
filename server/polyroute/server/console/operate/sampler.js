// Scrapes the server while the page is open, and keeps the last 15 minutes of it.

import { createStore } from "../store.js";
import { samplesOf } from "./exposition.js";
import { NEEDED, changes } from "./traffic.js";

const EVERY_MS = 2_000;
const WORTH = 10; // a scrape that takes long is made less often, so that it takes a tenth of the time
const KEPT_S = 15 * 60;
const GAP_S = 30; // without a scrape for so long, the line in a chart is broken

/**
 * `{points, error}`: what happened between scrapes, oldest first, `{at, seconds, by}` with `at` in Unix seconds; and why
 * the last scrape failed, or null.
 */
export const traffic = createStore({ points: [], error: null });

let last = null;
let started = false;

/** Begins to scrape, if it has not begun; a page that is not seen makes no scrapes. */
export function watchTraffic() {
  if (started) return;
  started = true;
  document.addEventListener("visibilitychange", () => document.hidden || next());
  next();
}

let timer = null;
let asking = false;

async function next() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  const begun = performance.now();
  try {
    take(await scrape(), Date.now() / 1_000);
  } catch (error) {
    traffic.set({ ...traffic.get(), error });
  }
  asking = false;
  const wait = Math.max(EVERY_MS, (performance.now() - begun) * WORTH);
  timer = setTimeout(() => document.hidden || next(), wait);
}

async function scrape() {
  const url = new URL("metrics", document.baseURI);
  for (const name of NEEDED) url.searchParams.append("name[]", name);
  const response = await fetch(url, { cache: "no-store" });
  if (!response.ok) throw new Error(`/metrics answered ${response.status}`);
  return samplesOf(await response.text());
}

function take(samples, at) {
  const before = last;
  last = { samples, at };
  if (before === null) return traffic.set({ ...traffic.get(), error: null });
  const kept = traffic.get().points.filter((point) => point.at > at - KEPT_S);
  if (at - before.at > GAP_S) kept.push({ at: before.at + 1, seconds: 0, by: null });
  kept.push({ at, seconds: at - before.at, by: changes(before.samples, samples) });
  return traffic.set({ points: kept, error: null });
}
