// The text of an answer, made readable as it comes: blocks that are complete stay, the last one is made anew.

import { blocksOf, fragmentOf } from "./markup.js";
import { keepSource, onCopyClick } from "./code.js";
import { showPlain } from "./plain.js";
import { html, useEffect, useLayoutEffect, useRef } from "./preact.js";

const LONG = 20_000; // characters without an empty line: shown as they are
const PAUSE = 3; // after an update that took long, at least this many times as long passes without one
const DEFINITION = /^ {0,3}\[[^\]\n]+\]:/m;
const FENCE = /^ {0,3}(?:`{3,}|~{3,})/gm;

/** The text of an answer, as markdown. Nothing in it is run, loaded or followed by itself. */
export function Rendered({ text, streaming = false }) {
  const root = useRef(null);
  const rendering = useRef(null);
  useLayoutEffect(() => {
    rendering.current ??= createRendering(root.current);
    rendering.current.update(text, streaming);
  }, [text, streaming]);
  useEffect(() => () => rendering.current?.end(), []);
  return html`<div class="rendered" ref=${root} onClick=${onCopyClick}></div>`;
}

/** Shows a growing text in `root`: `update(text, streaming)`, and `end()` when it is to be shown no more. */
export function createRendering(root) {
  let shown = ""; // what the complete blocks were made of
  let tail = null; // the element of the block that may still grow
  let timer = null;
  let idleUntil = 0;

  function now(text, streaming) {
    if (!text.startsWith(shown) || (!streaming && DEFINITION.test(text))) {
      root.replaceChildren();
      shown = "";
      tail = null;
    }
    for (const block of cut(text.slice(shown.length))) {
      const open = streaming && shown.length + block.raw.length === text.length;
      tail ??= root.appendChild(newBlock());
      show(tail, block);
      if (open) return;
      shown += block.raw;
      tail = null;
    }
    tail?.remove();
    tail = null;
  }

  return {
    update(text, streaming) {
      clearTimeout(timer);
      const begun = performance.now();
      if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n"); // as marked does, which counts by it
      if (streaming && begun < idleUntil) {
        timer = setTimeout(() => this.update(text, streaming), idleUntil - begun);
        return;
      }
      now(text, streaming);
      const ended = performance.now();
      idleUntil = ended + PAUSE * (ended - begun);
    },
    end: () => clearTimeout(timer),
  };
}

function newBlock() {
  const element = document.createElement("div");
  element.className = "block";
  return element;
}

function show(element, { raw, tokens }) {
  element.classList.toggle("plain", !tokens);
  if (tokens) morph(element, fragmentOf(tokens));
  else showPlain(element, raw);
}

// The text's blocks in order, `{raw, tokens}`; without tokens where one is too long to be read as markdown.
function* cut(text) {
  let at = 0;
  while (at < text.length) {
    const long = longFrom(text, at);
    const end = long ? long.start : text.length;
    if (end > at) yield* lexed(text.slice(at, end));
    if (!long) return;
    yield { raw: text.slice(long.start, long.end), tokens: null };
    at = long.end;
  }
}

// One block after the other; the space after a block belongs to it.
function* lexed(text) {
  const tokens = blocksOf(text);
  let block = [];
  for (const [index, token] of tokens.entries()) {
    block.push(token);
    if (tokens[index + 1]?.type === "space") continue;
    yield { raw: block.map(({ raw }) => raw).join(""), tokens: block };
    block = [];
  }
}

// Where the next stretch without an empty line begins and ends that is too long, unless it is or has fenced code.
function longFrom(text, from) {
  let start = from;
  let fences = 0;
  while (text.length - start > LONG) {
    const found = text.indexOf("\n\n", start);
    const end = found < 0 ? text.length : found + 2;
    const here = text.slice(start, end).match(FENCE)?.length ?? 0;
    if (end - start > LONG && here === 0 && fences % 2 === 0) return { start, end };
    fences += here;
    start = end;
  }
  return null;
}

// Brings the children of `into` to those of `from`, and leaves alone what is equal.
function morph(into, from) {
  const wanted = [...from.childNodes];
  for (const [index, fresh] of wanted.entries()) {
    const old = into.childNodes[index];
    if (!old) into.append(fresh);
    else if (old.isEqualNode(fresh)) continue;
    else if (old.nodeType === Node.TEXT_NODE && fresh.nodeType === Node.TEXT_NODE) grow(old, fresh.data);
    else if (alike(old, fresh)) {
      if (old.localName === "figure") keepSource(old, fresh);
      morph(old, fresh);
    } else old.replaceWith(fresh);
  }
  while (into.childNodes.length > wanted.length) into.lastChild.remove();
}

function grow(node, data) {
  if (data.startsWith(node.data)) node.appendData(data.slice(node.data.length));
  else node.data = data;
}

function alike(old, fresh) {
  return old.nodeType === Node.ELEMENT_NODE && old.cloneNode().isEqualNode(fresh.cloneNode());
}
