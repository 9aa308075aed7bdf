// Several models side by side on one prompt.

import { parameter } from "../location.js";
import { refreshModels, useModels } from "../models.js";
import { html } from "../preact.js";
import { firstChoices } from "./choices.js";
import { Comparison, keptChoices } from "./comparison.js";

/** The page `#/compare`; `?model=ROUTE` begins with the variants of a route. */
export function Page() {
  const { phase, entries, defaultModel, error } = useModels();
  if (phase === "failed") {
    return html`
      <div class="empty" role="alert">
        <h1>Compare</h1>
        <p>The models are not known: ${error.message}</p>
        <button type="button" onClick=${refreshModels}>Ask again</button>
      </div>
    `;
  }
  if (phase === "loading") return html`<div class="empty" role="status"><h1>Compare</h1><p>Asking for the models…</p></div>`;
  if (entries.length === 0) return html`<div class="empty"><h1>Compare</h1><p>This server has no models.</p></div>`;
  const first = firstChoices(entries, { defaultModel, asked: parameter("model"), kept: keptChoices() });
  return html`<${Comparison} entries=${entries} first=${first} />`;
}
