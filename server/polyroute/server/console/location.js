// Where the visitor is: a page in the fragment (`#/compare`), what the page is about in the query (`?model=...`).

import { createStore } from "./store.js";

/** The page's name: `chat`, `compare` or `operate`; what no page is named after is the chat. */
export function pageOf(hash) {
  const name = hash.replace(/^#\/?/, "").split(/[/?]/)[0];
  return ["compare", "operate"].includes(name) ? name : "chat";
}

/** The page that is shown. */
export const page = createStore(pageOf(location.hash));

addEventListener("hashchange", () => page.set(pageOf(location.hash)));

/** One parameter of the query, or null. */
export function parameter(name) {
  return new URLSearchParams(location.search).get(name);
}

/** Writes one parameter of the query, so that the address leads back here; null removes it. */
export function writeParameter(name, value) {
  const url = new URL(location.href);
  if (value === null) url.searchParams.delete(name);
  else url.searchParams.set(name, value);
  // slashes need no escape in a query, and IDs of models are easier to read with them
  url.search = url.search.replaceAll("%2F", "/");
  if (url.href !== location.href) history.replaceState(history.state, "", url);
}
