// How the server runs, and what an operator can change.

import { html } from "../preact.js";

/** The page `#/operate`. */
export function Page() {
  return html`<section class="empty"><h1>Operate</h1><p>How the server runs, and what an operator can change.</p></section>`;
}
