// The models and routes of the server, as they stand now.

import { call } from "./api.js";
import { badgesOf } from "./badges.js";
import { createStore, useStore } from "./store.js";

const REFRESH_MS = 2_000;
const SLOWEST_MS = 15_000;
const WORTH = 20; // a list that takes long is asked for less often, so that it takes a 20th of the time
const PAGE_SIZE = 1000;
const KINDS = { MODEL_TYPE_LOCAL: "local", MODEL_TYPE_REMOTE: "remote", MODEL_TYPE_ROUTE: "route" };

/**
 * @typedef {object} Entry one model or route
 * @property {string} id
 * @property {"local"|"remote"|"route"} kind
 * @property {string} state `warm`, `loading`, `cold`, `draining`, `failed` or `unknown`
 * @property {string} detail why it is in that state, in words
 * @property {import("./badges.js").Badge[]} badges the first is its state
 * @property {number} inFlight
 * @property {number} queued
 * @property {number} maxConcurrency
 * @property {number} maxQueue
 * @property {number} contextLength in tokens, 0 when not known
 * @property {string} version
 * @property {boolean} chat whether it takes conversations
 * @property {boolean} isDefault
 * @property {object[]} replicas as in `polyroute.v1.Model`
 * @property {object[]} variants as in `polyroute.v1.Model`
 * @property {string[]} fallback
 * @property {object|null} rollout `{to, weight, held}` of a route that rolls out: see `polyroute.v1.RolloutProgress`
 * @property {object} defaults what the model samples with where a request says nothing, as far as it is known
 */

/** `{phase: "loading"|"ready"|"failed", entries, defaultModel, error}`; after a failure the entries are the last ones. */
export const models = createStore({ phase: "loading", entries: [], defaultModel: "", error: null });

/** Whether the server can be reached, and when the next try is: `{online, retryAt}`, Unix time in milliseconds. */
export const connection = createStore({ online: true, retryAt: 0 });

let timer = null;
let failures = 0;
let asking = null;

/** The models and routes in a component; see `models`. */
export function useModels() {
  return useStore(models);
}

/** Asks for the models now, and from then on for as long as the page is visible. */
export function watchModels() {
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refreshModels();
  });
  globalThis.addEventListener("online", refreshModels);
  return refreshModels();
}

/** Asks for the models now; asked twice at once, it asks once. */
export function refreshModels() {
  asking ??= refresh().finally(() => (asking = null));
  return asking;
}

async function refresh() {
  clearTimeout(timer);
  const begun = performance.now();
  let wait = REFRESH_MS;
  try {
    const { listed, defaultModel } = await list();
    failures = 0;
    models.set({ phase: "ready", entries: listed.map(entryOf), defaultModel, error: null });
    connection.set({ online: true, retryAt: 0 });
    wait = Math.max(REFRESH_MS, (performance.now() - begun) * WORTH);
  } catch (error) {
    failures += 1;
    wait = Math.min(SLOWEST_MS, 1_000 * 2 ** (failures - 1));
    const known = models.get();
    models.set({ ...known, phase: known.entries.length > 0 ? "ready" : "failed", error });
    if (error.offline) connection.set({ online: false, retryAt: Date.now() + wait });
  }
  timer = setTimeout(() => document.hidden || refreshModels(), wait);
}

async function list() {
  const listed = [];
  let pageToken = "";
  for (;;) {
    const page = await call("ModelService", "ListModels", { pageSize: PAGE_SIZE, pageToken });
    listed.push(...(page.models ?? []));
    pageToken = page.nextPageToken ?? "";
    if (!pageToken) return { listed, defaultModel: page.defaultModel ?? "" };
  }
}

/** A `polyroute.v1.Model` as an `Entry`. */
export function entryOf(model) {
  const entry = {
    id: model.id,
    kind: KINDS[model.type] ?? "remote",
    state: (model.state ?? "").replace("MODEL_STATE_", "").toLowerCase() || "unknown",
    detail: model.detail ?? "",
    inFlight: model.inFlight ?? 0,
    queued: model.queued ?? 0,
    maxConcurrency: model.maxConcurrency ?? 0,
    maxQueue: model.maxQueue ?? 0,
    contextLength: Number(model.contextLength ?? 0),
    version: model.version ?? "",
    chat: model.chat ?? false,
    isDefault: model.default ?? false,
    replicas: model.replicas ?? [],
    variants: model.variants ?? [],
    fallback: model.fallback ?? [],
    rollout: model.rollout ?? null,
    defaults: model.samplingDefaults ?? {},
  };
  return { ...entry, badges: badgesOf(entry) };
}
