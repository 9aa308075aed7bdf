// Several models side by side on one prompt.

import { html } from "../preact.js";

/** The page `#/compare`. */
export function Page() {
  return html`<section class="empty"><h1>Compare</h1><p>Several models side by side on one prompt.</p></section>`;
}
