// Small choices that outlive a visit, in the browser's local storage; without one, they last as long as the page.

const PREFIX = "polyroute.";
const fallback = new Map();

/** The value kept under `key`, or null. Strings are kept as they are, all else as JSON: see `recallJson`. */
export function recall(key) {
  try {
    return localStorage.getItem(PREFIX + key);
  } catch {
    return fallback.get(key) ?? null;
  }
}

/** Keeps a string under `key`; null forgets it. */
export function remember(key, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + key);
    else localStorage.setItem(PREFIX + key, value);
  } catch {
    if (value === null) fallback.delete(key);
    else fallback.set(key, value);
  }
}

/** What was kept as JSON under `key`; `otherwise` where there is nothing, or nothing readable. */
export function recallJson(key, otherwise) {
  try {
    return JSON.parse(recall(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** Keeps a value as JSON under `key`. */
export function rememberJson(key, value) {
  remember(key, JSON.stringify(value));
}
