// The text of an answer, made readable as it comes.

import { html } from "./preact.js";

/** The text of an answer, which is hostile until shown otherwise. */
export function Rendered({ text }) {
  return html`<div class="rendered" dir="auto">${text}</div>`;
}
