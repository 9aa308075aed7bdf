// The parameters of a request as a form; what is left empty is the model's own.

import { CACHE_MODES, FORMATS, NUMBERS, readParameters } from "./parameter_fields.js";
import { html } from "./preact.js";

/**
 * `value` is what was typed, strings by key (parameter_fields.js), `onChange(value)` is told of a change. `entry` is the
 * model as in models.js, whose defaults are shown where nothing is typed; null where there are several models.
 */
export function Parameters({ value, onChange, entry }) {
  const { problems } = readParameters(value);
  const set = (key, typed) => onChange({ ...value, [key]: typed });
  const form = { value, problems, set };
  const format = FORMATS.find(([key]) => key === (value.format ?? ""));
  return html`
    <div class="parameters">
      <div class="parameters-numbers">
        ${NUMBERS.map((field) => html`<${NumberField} key=${field.key} form=${form} field=${field} entry=${entry} />`)}
        <${TextField} form=${form} name="seed" label="Seed" inputmode="numeric" placeholder="random" />
      </div>
      <${TextField} form=${form} name="stop" label="Stop strings, one a line" rows="2" placeholder="none; \\n is a line end" />
      <${Select} form=${form} name="cacheMode" label="Cache" options=${CACHE_MODES} />
      <${Select} form=${form} name="format" label="Answer format" options=${FORMATS} />
      ${format[0] && html`<${TextField} form=${form} name="formatText" label=${format[1]} rows="5" placeholder=${format[2]} mono />`}
      <details open=${["variant", "user", "session", "affinityKey", "noFallback", "noShadow"].some((key) => value[key])}>
        <summary>Routing</summary>
        <div class="parameters-routing">
          ${entry?.kind === "route" && html`<${Variant} form=${form} entry=${entry} />`}
          <${TextField} form=${form} name="user" label="User" placeholder="keeps a user on one variant" />
          <${TextField} form=${form} name="session" label="Session" placeholder="keeps a session on one variant" />
          <${TextField} form=${form} name="affinityKey" label="Affinity key" placeholder="prefers one replica" />
          <${Check} form=${form} name="noFallback" label="No fallback: fail instead" />
          <${Check} form=${form} name="noShadow" label="No copies to shadows" />
        </div>
      </details>
    </div>
  `;
}

function NumberField({ form, field, entry }) {
  const range = [field.above ?? field.min, field.max].filter((end) => end !== undefined).join(" to ");
  return html`
    <${TextField} form=${form} name=${field.key} label=${field.label} inputmode=${field.integer ? "numeric" : "decimal"}
      placeholder=${defaultOf(field, entry)} title=${range && `${range}${field.max === undefined ? " or more" : ""}`} />
  `;
}

function defaultOf({ key, none }, entry) {
  const known = entry?.defaults?.[key] ?? none;
  if (key === "maxTokens" && known === undefined && entry?.contextLength) return "up to the context";
  if (known === undefined) return "model's own";
  if (key === "temperature" && known === 0) return "0 (greedy)";
  if (key === "topK" && known === 0) return "0 (all)";
  return String(Math.round(known * 1e6) / 1e6);
}

function TextField({ form, name, label, rows, mono, ...rest }) {
  const problem = form.problems[name];
  const shared = {
    ...rest,
    value: form.value[name] ?? "",
    class: mono ? "mono" : null,
    autocomplete: "off",
    spellcheck: false,
    "aria-invalid": problem ? "true" : null,
    "aria-describedby": problem ? `problem-${name}` : null,
    onInput: (event) => form.set(name, event.currentTarget.value),
  };
  return html`
    <label class="field">${label}
      ${rows ? html`<textarea rows=${rows} ...${shared}></textarea>` : html`<input type="text" ...${shared} />`}
      ${problem && html`<span class="field-error" id=${`problem-${name}`}>${problem}</span>`}
    </label>
  `;
}

function Select({ form, name, label, options }) {
  return html`
    <label class="field">${label}
      <select value=${form.value[name] ?? ""} onChange=${(event) => form.set(name, event.currentTarget.value)}>
        ${options.map(([key, words]) => html`<option key=${key} value=${key} selected=${key === (form.value[name] ?? "")}>${words}</option>`)}
      </select>
    </label>
  `;
}

function Variant({ form, entry }) {
  const options = [["", "as the route assigns"], ...entry.variants.map(({ name, model }) => [name, `${name}: ${model}`])];
  return html`<${Select} form=${form} name="variant" label="Variant" options=${options} />`;
}

function Check({ form, name, label }) {
  return html`
    <label class="check">
      <input type="checkbox" checked=${Boolean(form.value[name])}
        onChange=${(event) => form.set(name, event.currentTarget.checked)} /> ${label}
    </label>
  `;
}
