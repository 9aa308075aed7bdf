// One turn of a conversation: what was asked, or what was answered.

import { AnswerView } from "../answer_view.js";
import { copyText } from "../clipboard.js";
import { html, memo, useEffect, useRef, useState } from "../preact.js";
import { edit, retry } from "./asking.js";
import { useFocusKept } from "./focus.js";

const COPIED_MS = 1_500;

/** A `Node` (conversation.js), `place` of `count` beside each other; `onPlace(node, place)` shows another of them. */
export const Turn = memo(function Turn({ node, place, count, busy, onPlace }) {
  const [editing, setEditing] = useState(false);
  const editButton = useRef(null);
  useFocusKept(editing, editButton);
  const mine = node.role === "user";
  const by = mine ? "You" : node.answer.route?.model || node.answer.request?.model || "Assistant";
  const streaming = !mine && node.answer.state === "streaming";
  return html`
    <article class=${`turn ${node.role}`} aria-label=${mine ? "Your message" : `Answer of ${by}`}>
      <h2 class=${mine ? "unseen" : "turn-by"}><bdi>${by}</bdi></h2>
      ${!mine && html`<${AnswerView} answer=${node.answer} />`}
      ${mine && !editing && html`<div class="turn-text" dir="auto">${node.content}</div>`}
      ${mine && editing && html`<${Editor} node=${node} onClose=${() => setEditing(false)} />`}
      ${!editing && !streaming && html`
        <div class="turn-tools">
          ${count > 1 && html`<${Places} node=${node} place=${place} count=${count} onPlace=${onPlace} />`}
          <${CopyButton} text=${node.content} />
          ${mine
            ? html`<button type="button" class="quiet small" ref=${editButton} disabled=${busy} onClick=${() => setEditing(true)}>Edit</button>`
            : html`<button type="button" class="quiet small" disabled=${busy} onClick=${() => retry(node)}>Ask again</button>`}
        </div>
      `}
    </article>
  `;
});

function Places({ node, place, count, onPlace }) {
  return html`
    <span class="turn-places" role="group" aria-label="Versions">
      <button type="button" class="quiet small" aria-label="Version before" disabled=${place === 0}
        onClick=${() => onPlace(node, place - 1)}>‹</button>
      <span class="tiny numbers">${place + 1} of ${count}</span>
      <button type="button" class="quiet small" aria-label="Version after" disabled=${place === count - 1}
        onClick=${() => onPlace(node, place + 1)}>›</button>
    </span>
  `;
}

function CopyButton({ text }) {
  const [told, setTold] = useState("Copy");
  const copy = async () => {
    setTold((await copyText(text)) ? "Copied" : "Not allowed");
    setTimeout(() => setTold("Copy"), COPIED_MS);
  };
  return html`<button type="button" class="quiet small" disabled=${!text} onClick=${copy}>${told}</button>`;
}

function Editor({ node, onClose }) {
  const [text, setText] = useState(node.content);
  const field = useRef(null);
  useEffect(() => field.current.focus(), []);
  const submit = (event) => {
    event.preventDefault();
    if (!text.trim()) return;
    onClose();
    edit(node, text);
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
    if (event.key !== "Escape") return;
    event.preventDefault();
    onClose();
  };
  return html`
    <form class="turn-editor" onSubmit=${submit}>
      <textarea aria-label="Edit your message" rows="3" value=${text} ref=${field}
        onInput=${(event) => setText(event.currentTarget.value)} onKeyDown=${onKeyDown}></textarea>
      <div class="row">
        <button type="submit" class="primary small" disabled=${!text.trim()}>Send</button>
        <button type="button" class="small" onClick=${onClose}>Cancel</button>
      </div>
    </form>
  `;
}
