// How well a few typed letters fit a name.

const START = 8; // a letter that begins a word
const RUN = 5; // a letter right after the one before it
const FIRST = 6; // a match at the very beginning
const GAP = 0.2; // a letter that was skipped

/**
 * Fits the letters of `query`, in order and whatever their case, into `text`. Returns `{score, at}`, `at` being the
 * places of the letters, or null where they do not fit. Spaces in the query are left out.
 */
export function fit(query, text) {
  const wanted = query.toLowerCase().replace(/\s+/g, "");
  const lower = text.toLowerCase();
  if (!wanted) return { score: 0, at: [] };
  const whole = lower.indexOf(wanted);
  if (whole >= 0) return scored(text, [...wanted].map((_, index) => whole + index), wanted.length * RUN);
  let best = null;
  for (let start = lower.indexOf(wanted[0]); start >= 0; start = lower.indexOf(wanted[0], start + 1)) {
    const at = placesFrom(wanted, lower, text, start);
    if (!at) break; // nor does it fit any later
    const found = scored(text, at, 0);
    if (!best || found.score > best.score) best = found;
  }
  return best;
}

// Each letter at its next place; at one that begins a word where there is one and the rest still fits.
function placesFrom(wanted, lower, text, start) {
  const at = [start];
  for (const [index, letter] of [...wanted].entries()) {
    if (index === 0) continue;
    const next = lower.indexOf(letter, at.at(-1) + 1);
    if (next < 0) return null;
    at.push(next === at.at(-1) + 1 ? next : (wordStart(wanted, lower, text, index, next) ?? next));
  }
  return at;
}

function wordStart(wanted, lower, text, index, from) {
  for (let place = from; place >= 0; place = lower.indexOf(wanted[index], place + 1)) {
    if (begins(text, place)) return fitsAfter(wanted.slice(index + 1), lower, place + 1) ? place : null;
  }
  return null;
}

function fitsAfter(letters, lower, from) {
  let place = from;
  for (const letter of letters) {
    place = lower.indexOf(letter, place) + 1;
    if (place === 0) return false;
  }
  return true;
}

function begins(text, place) {
  if (place === 0) return true;
  const [before, here] = [text[place - 1], text[place]];
  return /[^a-z0-9]/i.test(before) || (/[a-z]/.test(before) && /[A-Z]/.test(here)) || /\d/.test(here) !== /\d/.test(before);
}

function scored(text, at, bonus) {
  let score = bonus + (at[0] === 0 ? FIRST : 0) - text.length * 0.01;
  for (const [index, place] of at.entries()) {
    if (begins(text, place)) score += START;
    if (index > 0 && place === at[index - 1] + 1) score += RUN;
    else if (index > 0) score -= (place - at[index - 1] - 1) * GAP;
  }
  return { score, at };
}

/** A text as parts, `{text, hit}`, by the places of `fit`. */
export function parts(text, at) {
  const hits = new Set(at);
  const found = [];
  for (const [index, letter] of [...text].entries()) {
    const hit = hits.has(index);
    if (found.at(-1)?.hit === hit) found.at(-1).text += letter;
    else found.push({ text: letter, hit });
  }
  return found;
}
