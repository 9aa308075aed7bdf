// What differs between two texts, word by word.

import { diffArrays } from "../vendor/diff/array.js";

const LONGEST_MS = 400; // texts that have little in common take quadratic time
const MOST_CHARS = 100_000;

/**
 * @typedef {object} Part
 * @property {string} text
 * @property {"same"|"removed"|"added"} kind
 * @property {number} words
 */

/** The parts of two texts in order, as `Part[]`; null where they are too long or too different to tell in time. */
export function differences(before, after) {
  if (before.length > MOST_CHARS || after.length > MOST_CHARS) return null;
  const found = diffArrays(wordsOf(before), wordsOf(after), {
    comparator: (left, right) => left.trimEnd() === right.trimEnd(),
    timeout: LONGEST_MS,
  });
  return (
    found?.map(({ value, added, removed }) => ({
      text: value.join(""),
      kind: added ? "added" : removed ? "removed" : "same",
      words: value.length,
    })) ?? null
  );
}

/** The words of a text, each with the space after it: else texts would seem to have their spaces in common. */
export function wordsOf(text) {
  const words = [];
  for (const { segment } of new Intl.Segmenter(undefined, { granularity: "word" }).segment(text)) {
    if (words.length > 0 && /^\s+$/u.test(segment)) words[words.length - 1] += segment;
    else words.push(segment);
  }
  return words;
}
