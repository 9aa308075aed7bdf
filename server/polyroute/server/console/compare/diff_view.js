// Two answers as one text in which it is marked what differs.

import { html, useMemo, useState } from "../preact.js";
import { differences } from "./words.js";

/** Shows what differs between two of the answers; `answers` are `{name, text}`, at least two. */
export function DiffView({ answers }) {
  const [pair, setPair] = useState([0, 1]);
  const [before, after] = pair.map((at) => answers[at] ?? answers[0]);
  const parts = useMemo(() => differences(before.text, after.text), [before.text, after.text]);
  const choose = (side) => (event) => setPair(pair.with(side, Number(event.currentTarget.value)));
  return html`
    <section class="card diff" aria-labelledby="diff-title">
      <div class="row">
        <h2 id="diff-title">Differences</h2>
        <label class="check">from <${Which} answers=${answers} value=${pair[0]} onChange=${choose(0)} /></label>
        <label class="check">to <${Which} answers=${answers} value=${pair[1]} onChange=${choose(1)} /></label>
      </div>
      ${parts === null
        ? html`<p class="soft">They are too long or have too little in common to be told apart word by word.</p>`
        : html`<p class="soft" role="status">${summary(parts)}</p><div class="diff-text" dir="auto">${parts.map(marked)}</div>`}
    </section>
  `;
}

function Which({ answers, value, onChange }) {
  return html`
    <select value=${value} onChange=${onChange}>
      ${answers.map(({ name }, at) => html`<option key=${at} value=${at} selected=${at === value}>${name}</option>`)}
    </select>
  `;
}

function marked({ text, kind }, at) {
  if (kind === "same") return html`<span key=${at}>${text}</span>`;
  return kind === "removed" ? html`<del key=${at}>${text}</del>` : html`<ins key=${at}>${text}</ins>`;
}

function summary(parts) {
  const count = (kind) => parts.filter((part) => part.kind === kind).reduce((sum, { words }) => sum + words, 0);
  const [same, removed, added] = [count("same"), count("removed"), count("added")];
  if (removed === 0 && added === 0) return "They are the same, word by word.";
  return `${removed} words and marks are only in the first, ${added} only in the second, ${same} in both.`;
}
