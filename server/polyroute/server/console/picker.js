// Chooses a model or a route.

import { useModels } from "./models.js";
import { html } from "./preact.js";

/** A choice among the models and routes; `onChange(id)`. */
export function ModelPicker({ value, onChange, label = "Model" }) {
  const { entries } = useModels();
  return html`
    <label class="field">${label}
      <select value=${value} onChange=${(event) => onChange(event.currentTarget.value)}>
        ${entries.map(
          ({ id, badges }) => html`
            <option key=${id} value=${id} selected=${id === value}>${id} · ${badges.map(({ text }) => text).join(", ")}</option>
          `,
        )}
      </select>
    </label>
  `;
}
