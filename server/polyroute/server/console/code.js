// Code in an answer: its language, a button that copies it, and nothing in it that cannot be seen.

import { copyText } from "./clipboard.js";

const LINES = 100; // a long listing is laid out in pieces, so that a new line moves the last one alone
const COPIED_MS = 1_500;

// Signs that turn the order of what is read, or that have no width: code that hides something has these.
const UNSEEN = /[\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
const sources = new WeakMap();

/** A `<pre>` with its `<code>` as a figure with a caption. */
export function codeFigure(pre) {
  const code = pre.querySelector("code") ?? pre;
  const source = code.textContent;
  const language = /language-(\S+)/.exec(code.className)?.[1] ?? "";
  const figure = document.createElement("figure");
  figure.className = "code";
  const caption = document.createElement("figcaption");
  const name = document.createElement("span");
  name.textContent = language || "text";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet small";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy ${language || "code"}`);
  caption.append(name, button);
  const shown = document.createElement("pre");
  shown.tabIndex = 0; // so that a keyboard can scroll it
  shown.dir = "ltr";
  const inner = document.createElement("code");
  inner.append(...pieces(source));
  shown.append(inner);
  figure.append(caption, shown);
  sources.set(button, source);
  return figure;
}

/** Keeps what a figure's button copies when the figure is updated in place. */
export function keepSource(figure, from) {
  const [old, fresh] = [figure, from].map((each) => each.querySelector("figcaption button"));
  if (old && fresh && sources.has(fresh)) sources.set(old, sources.get(fresh));
}

/** Copies the code whose button was clicked; for the click of whatever holds figures. */
export async function onCopyClick(event) {
  const button = event.target.closest?.("figure.code figcaption button");
  if (!button || !sources.has(button)) return;
  button.textContent = (await copyText(sources.get(button))) ? "Copied" : "Not allowed";
  setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
}

function pieces(source) {
  const lines = source.split("\n");
  if (lines.length <= 2 * LINES) return visible(source);
  const all = [];
  for (let at = 0; at < lines.length; at += LINES) {
    const piece = document.createElement("span");
    piece.className = "piece";
    piece.append(...visible(lines.slice(at, at + LINES).join("\n")));
    all.push(piece);
  }
  return all;
}

function visible(text) {
  const nodes = [];
  let at = 0;
  for (const found of text.matchAll(UNSEEN)) {
    if (found.index > at) nodes.push(document.createTextNode(text.slice(at, found.index)));
    const sign = document.createElement("span");
    sign.className = "unseen-sign";
    sign.textContent = `U+${found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    nodes.push(sign);
    at = found.index + found[0].length;
  }
  nodes.push(document.createTextNode(text.slice(at)));
  return nodes;
}
