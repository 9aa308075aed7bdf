// Words in which names stand between backticks.

import { html } from "../preact.js";

/** Text with what stands between backticks as code; names may have any characters, so each is isolated. */
export function WordedCode({ text }) {
  return text
    .split(/`([^`]*)`/)
    .map((part, at) => (at % 2 === 1 ? html`<code><bdi>${part}</bdi></code>` : html`<bdi>${part}</bdi>`));
}
