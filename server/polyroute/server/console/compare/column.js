// One of the answers that are compared.

import { Failure } from "../answer_view.js";
import { CopyAs } from "../copy_as.js";
import { Rendered } from "../markdown.js";
import { html, useEffect, useRef } from "../preact.js";
import { Why } from "../why.js";
import { Figures } from "./figures.js";

/**
 * An answer under its name. `shown` says whether its text may be seen, `open` whether it may say whose it is; `scroll`
 * is what its pane scrolls with (scrolling.js).
 */
export function Column({ name, answer, answers, shown, open, chosen, scroll }) {
  const pane = useRef(null);
  useEffect(() => scroll.add(pane.current), [scroll]);
  const streaming = answer.state === "streaming";
  return html`
    <article class=${`card column${chosen ? " chosen" : ""}`} aria-label=${name}>
      <h2><bdi>${name}</bdi>${chosen && html` <span class="badge good">your choice</span>`}</h2>
      <div class="pane" ref=${pane} tabindex="0" role="region" aria-label=${`Answer of ${name}`} aria-busy=${streaming}>
        ${shown ? html`<${Shown} answer=${answer} />` : html`<p class="soft">${hiddenWord(answer)}</p>`}
      </div>
      ${open && html`<${Figures} answer=${answer} answers=${answers} />`}
      ${open && !streaming && html`<${Why} answer=${answer} /><${CopyAs} answer=${answer} />`}
    </article>
  `;
}

function Shown({ answer }) {
  const streaming = answer.state === "streaming";
  return html`
    ${answer.text && html`<${Rendered} text=${answer.text} streaming=${streaming} />`}
    ${streaming && !answer.text && html`<p class="soft">Waiting for the first token…</p>`}
    ${answer.state === "done" && !answer.text && html`<p class="soft">An empty answer.</p>`}
    ${answer.state === "stopped" && html`<p class="soft">Stopped.</p>`}
    ${answer.error && html`<${Failure} error=${answer.error} />`}
  `;
}

function hiddenWord({ state }) {
  return state === "streaming" ? "Is being written…" : "Is there. All are shown together.";
}
