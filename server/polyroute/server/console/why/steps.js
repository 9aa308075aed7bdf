// The way of an answer, step by step: what was asked for, where it fell, who was tried, what the cache did, when.

import { age, msOf, span } from "./times.js";

/**
 * @typedef {object} Step
 * @property {string} name what the step is about
 * @property {string} told what came of it, in words; names stand between backticks
 * @property {"good"|"bad"|"busy"|""} tone
 * @property {string[]} notes more words, in order
 * @property {number|null} point where the call's hash fell, in [0, 1)
 * @property {string} code an ID, to be copied
 */

const CACHE = {
  CACHE_RESULT_MISS: ["not found, so the model ran", ""],
  CACHE_RESULT_HIT: ["answered from the cache", "good"],
  CACHE_RESULT_COALESCED: ["shared the run of an equal request that was under way", "good"],
  CACHE_RESULT_BYPASS: ["not asked", ""],
};

/** The steps of an `Answer` (answer.js) as far as they are known; an answer without a route has those of its failure. */
export function stepsOf(answer) {
  const { route } = answer;
  const steps = route ? [...routeSteps(route), ...timeSteps(answer)] : [];
  if (answer.error) steps.push(failure(answer.error));
  if (route?.traceId) steps.push(step("Trace", "equal on every server that the call crossed", { code: route.traceId }));
  if (answer.requestId) steps.push(step("Request", "its name in logs and records", { code: answer.requestId }));
  return steps;
}

/** The steps of a `Route`: another router's too, where the peer was one. */
export function routeSteps(route) {
  const reasons = route.reasons ?? [];
  const words = reasons.filter((each) => !ofCache(each) && !ofVariant(each));
  const steps = [step("Route", `\`${route.requested}\` was asked for`, { notes: words })];
  if (route.variant) steps.push(variant(route, reasons.filter(ofVariant)));
  const attempts = route.attempts ?? [];
  attempts.forEach((each, at) => steps.push(attempt(each, attempts.length > 1 ? `Attempt ${at + 1}` : "Attempt")));
  const [told, tone] = CACHE[route.cache] ?? ["not known", ""];
  const old = route.cacheAge ? `, ${age(msOf(route.cacheAge))} old` : "";
  const notes = reasons.filter(ofCache).map((each) => each.slice("cache: ".length));
  steps.push(step("Cache", told + old, { tone, notes, code: route.cacheKey ?? "" }));
  const version = route.version ? `, version \`${route.version}\`` : "";
  steps.push(step("Answered by", `\`${route.model}\`${version}`, { tone: "good" }));
  return steps;
}

/** The steps of a plan: an `ExplainRouteResponse`, of a request that was not run. */
export function planSteps(plan) {
  const reasons = plan.reasons ?? [];
  const words = reasons.filter((each) => !ofVariant(each));
  const steps = [step("Route", `\`${plan.requested}\` is asked for`, { notes: words })];
  const { hashPoint: point = null } = plan;
  for (const chosen of reasons.filter(ofVariant)) steps.push(step("Variant", chosen, { point }));
  (plan.attempts ?? []).forEach((each, at) => steps.push(planned(each, at)));
  for (const { deployment, sample } of plan.shadows ?? []) {
    steps.push(step("Shadow", `\`${deployment}\` gets a copy of ${share(sample ?? 0)} of the calls`));
  }
  return steps;
}

function variant({ variant: name, probability, hashPoint: point = null }, notes) {
  const had = probability === undefined ? "" : `, which had ${share(probability)} of the traffic`;
  return step("Variant", `\`${name}\`${had}`, { notes, point });
}

function attempt({ deployment, replica, variant: arm, error, duration }, name) {
  const who = [`\`${deployment}\``, replica && `at \`${replica}\``, arm && `as \`${arm}\``].filter(Boolean).join(" ");
  const took = duration ? ` after ${span(msOf(duration))}` : "";
  if (!error) return step(name, `${who} began to answer${took}`, { tone: "good" });
  return step(name, `${who} failed${took}: ${error.reason ?? "for no known reason"}`, {
    tone: "bad",
    notes: error.message ? [error.message] : [],
  });
}

function planned({ deployment, version, variant: arm, fallback, state, cache, replica, replicaReason }, at) {
  const stands = (state ?? "MODEL_STATE_UNSPECIFIED").replace("MODEL_STATE_", "").toLowerCase();
  const told = [`\`${deployment}\``, version && `version \`${version}\``, arm && `as \`${arm}\``, `now ${stands}`];
  const notes = [cache, replica && `at ${replica}`, replicaReason].filter(Boolean);
  const name = at === 0 ? "First" : fallback ? "Fallback" : "Then";
  const tone = { warm: "good", loading: "busy", cold: "busy", failed: "bad" }[stands] ?? "";
  return step(name, told.filter(Boolean).join(", "), { notes, tone });
}

function timeSteps({ timing, firstTokenMs, usage }) {
  const steps = [];
  if (timing) steps.push(step("Queue", `waited ${span(msOf(timing.queue))} for a permit`));
  const here = firstTokenMs === null ? "" : `${span(firstTokenMs)} as this page saw it`;
  if (timing) steps.push(step("First token", `after ${span(msOf(timing.firstToken))}`, { notes: here ? [here] : [] }));
  else if (here) steps.push(step("First token", here));
  if (timing) {
    const read = `${usage?.promptTokens ?? 0} tokens read, ${usage?.completionTokens ?? 0} written`;
    const notes = [usage ? read : "", `${span(msOf(timing.routerOverhead))} of it the router's own`];
    steps.push(step("End", `after ${span(msOf(timing.total))}`, { notes: notes.filter(Boolean) }));
  }
  return steps;
}

function failure(error) {
  const notes = error.field ? [`the field \`${error.field}\``] : [];
  if (error.retryAfterS) notes.push(`worth another try in ${error.retryAfterS} s`);
  return step("Failed", `${error.reason || error.code}: ${error.message}`, { tone: "bad", notes });
}

function step(name, told, { tone = "", notes = [], point = null, code = "" } = {}) {
  return { name, told, tone, notes, point, code };
}

function ofCache(reason) {
  return reason.startsWith("cache: ");
}

// The words in which routing says why it is this variant: docs/routing.md.
function ofVariant(reason) {
  return reason.startsWith("keyed on ") || reason.startsWith("pinned to ");
}

function share(fraction) {
  return `${Number((fraction * 100).toFixed(1))}%`;
}
