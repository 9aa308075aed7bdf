// Who is compared: two to four models, or variants of a route.

/** Fewest that are compared at once. */
export const FEWEST = 2;
/** Most that are compared at once. */
export const MOST = 4;

/**
 * @typedef {object} Choice
 * @property {string} model ID of a model or route
 * @property {string} variant name of the variant to pin; empty: as the route decides
 */

/**
 * The choices to begin with: those that are `linked`, or were `kept`, if they still exist; else the variants of `asked`
 * or of the first experiment there is; else the default model and the next that answers at once.
 */
export function firstChoices(entries, { defaultModel, asked = null, linked = [], kept = [] }) {
  if (linked.length >= FEWEST) return linked.slice(0, MOST);
  if (linked.length > 0) return [linked[0], otherThan(linked[0].model, entries)];
  const known = kept.filter((choice) => exists(choice, entries));
  if (!asked && known.length >= FEWEST) return known.slice(0, MOST);
  const named = entries.find(({ id }) => id === asked);
  const experiment = named ?? entries.find(({ variants }) => variants.length >= FEWEST);
  if (experiment && experiment.variants.length >= FEWEST) return variantsOf(experiment);
  const first = named?.id ?? defaultModel;
  return [{ model: first, variant: "" }, otherThan(first, entries)];
}

function otherThan(first, entries) {
  const others = entries.filter(({ id, kind }) => id !== first && kind !== "route");
  const second = others.find(({ state }) => state === "warm") ?? others[0];
  return { model: second?.id ?? first, variant: "" };
}

/** A choice as an address has it: `MODEL`, or `ROUTE@VARIANT`. */
export function wordOf({ model, variant }) {
  return variant ? `${model}@${variant}` : model;
}

/** What an address asks for: `{known, unknown}`, choices of what there is, and the words for what there is not. */
export function readWords(words, entries) {
  const read = words.map((word) => [word, choiceOf(word, entries)]);
  return {
    known: read.map(([, choice]) => choice).filter((choice) => exists(choice, entries)),
    unknown: read.filter(([, choice]) => !exists(choice, entries)).map(([word]) => word),
  };
}

// IDs may have an @ as well: what is a model's whole ID is that model.
function choiceOf(word, entries) {
  const at = word.lastIndexOf("@");
  if (at < 0 || entries.some(({ id }) => id === word)) return { model: word, variant: "" };
  return { model: word.slice(0, at), variant: word.slice(at + 1) };
}

/** Every variant of a route, as choices; the first `MOST` of them. */
export function variantsOf(entry) {
  return entry.variants.slice(0, MOST).map(({ name }) => ({ model: entry.id, variant: name }));
}

/** What a choice is called. */
export function nameOf({ model, variant }) {
  return variant ? `${model} · ${variant}` : model;
}

/**
 * The `GenerateRequest` of a choice: `input` is `{prompt, system}`, `options` the fields that all have. A pinned
 * variant is compared itself, so nothing else may answer for it; and no copies are made of what is only tried.
 */
export function requestOf(choice, entry, { prompt, system }, options) {
  const routing = { ...options.routing, noShadow: true };
  if (choice.variant) Object.assign(routing, { variant: choice.variant, noFallback: true });
  return { model: choice.model, ...inputOf(entry, prompt, system), ...options, routing };
}

function inputOf(entry, prompt, system) {
  if (entry && !entry.chat) return { prompt: system ? `${system}\n\n${prompt}` : prompt };
  const messages = [{ role: "user", content: prompt }];
  if (system) messages.unshift({ role: "system", content: system });
  return { messages: { messages } };
}

function exists({ model, variant }, entries) {
  const entry = entries.find(({ id }) => id === model);
  return Boolean(entry) && (!variant || entry.variants.some(({ name }) => name === variant));
}
