// Who is compared, as the visitor chooses it.

import { ModelPicker } from "../picker.js";
import { html } from "../preact.js";
import { FEWEST, MOST, variantsOf } from "./choices.js";

/** Two to four choices of a model and, of a route, of a variant; `onChange(choices)`. */
export function Chooser({ choices, entries, onChange }) {
  const change = (at, changed) => onChange(choices.with(at, { ...choices[at], ...changed }));
  const route = choices.map(({ model }) => entryOf(model, entries)).find((entry) => entry?.variants.length >= FEWEST);
  return html`
    <div class="choices">
      ${choices.map(
        (choice, at) => html`
          <${Chosen} key=${at} number=${at + 1} choice=${choice} entry=${entryOf(choice.model, entries)}
            onChange=${(changed) => change(at, changed)}
            onRemove=${choices.length > FEWEST ? () => onChange(choices.toSpliced(at, 1)) : null} />
        `,
      )}
    </div>
    <div class="row">
      <button type="button" disabled=${choices.length >= MOST} onClick=${() => onChange([...choices, choices.at(-1)])}>
        Add another
      </button>
      ${route && html`
        <button type="button" class="quiet" onClick=${() => onChange(variantsOf(route))}>
          Every variant of <bdi>${route.id}</bdi>
        </button>
      `}
    </div>
  `;
}

function Chosen({ number, choice, entry, onChange, onRemove }) {
  const variants = entry?.variants ?? [];
  return html`
    <fieldset class="choice">
      <legend class="unseen">Number ${number}</legend>
      <div class="choice-model">
        <${ModelPicker} label=${`Model ${number}`} value=${choice.model} onChange=${(model) => onChange({ model, variant: "" })} />
        ${onRemove && html`
          <button type="button" class="quiet icon" aria-label=${`Remove number ${number}`} title="Remove" onClick=${onRemove}>✕</button>
        `}
      </div>
      ${variants.length > 0 && html`
        <label class="field">Variant ${number}
          <select value=${choice.variant} onChange=${(event) => onChange({ variant: event.currentTarget.value })}>
            <option value="" selected=${!choice.variant}>as the route decides</option>
            ${variants.map(({ name, model }) => html`
              <option key=${name} value=${name} selected=${name === choice.variant}>${name} (${model})</option>
            `)}
          </select>
        </label>
      `}
    </fieldset>
  `;
}

function entryOf(model, entries) {
  return entries.find(({ id }) => id === model);
}
