// A badge as badges.js makes them.

import { html } from "./preact.js";

/** Shows a `Badge`. */
export function Badge({ text, tone, title }) {
  return html`<span key=${text} class=${`badge ${tone}`} title=${title}>${text}</span>`;
}
