// Where the visitor is: a page in the fragment (`#/compare`), what the page is about in the query (`?model=...`).

import { createStore } from "./store.js";

/** The page's name: `chat`, `compare` or `operate`; what no page is named after is the chat. */
export function pageOf(hash) {
  const name = hash.replace(/^#\/?/, "").split(/[/?]/)[0];
  return ["compare", "operate"].includes(name) ? name : "chat";
}

/** The page that is shown. */
export const page = createStore(pageOf(location.hash));

// Back and forward between addresses with different queries have no `hashchange`.
for (const moved of ["hashchange", "popstate"]) addEventListener(moved, () => page.set(pageOf(location.hash)));

/** The page that the address named when the console was loaded: what the query is about is meant for that one. */
export const firstPage = page.get();

/** The values of a parameter that is part of the page's own address: of `with` in `#/compare?with=a&with=b`, `a` and `b`. */
export function valuesInPage(name) {
  return new URLSearchParams(location.hash.split("?")[1] ?? "").getAll(name);
}

/** Writes every value of a parameter into the page's own address; who reads it again finds the same. */
export function writeValuesInPage(name, values) {
  const written = new URLSearchParams(values.map((value) => [name, value])).toString();
  replaceAddress(new URL(`${location.hash.split("?")[0]}?${legible(written)}`, location.href));
}

/** One parameter of the query, or null. */
export function parameter(name) {
  return new URLSearchParams(location.search).get(name);
}

/** Writes one parameter of the query, so that the address leads back here; null removes it. */
export function writeParameter(name, value) {
  const url = new URL(location.href);
  if (value === null) url.searchParams.delete(name);
  else url.searchParams.set(name, value);
  url.search = legible(url.search);
  replaceAddress(url);
}

// Slashes and @ need no escape here, and IDs of models are easier to read with them.
function legible(query) {
  return query.replaceAll("%2F", "/").replaceAll("%40", "@");
}

function replaceAddress(url) {
  if (url.href !== location.href) history.replaceState(history.state, "", url);
}
