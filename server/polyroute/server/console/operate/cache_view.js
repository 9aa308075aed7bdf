// The answer cache: what each tier holds, how much it helped each model, and what is to leave it.

import { call } from "../api.js";
import { Failure } from "../answer_view.js";
import { useModels } from "../models.js";
import { html, useState } from "../preact.js";
import { useAsked } from "./asking.js";
import { Confirm } from "./confirm.js";
import { bytes, count, lasted, num, percent, seconds } from "./figures.js";

const EVERY_MS = 5_000;
const KEY = "[0-9a-f]{64}";

/** The view `#/operate/cache`. */
export function CacheView() {
  const { value, error, again } = useAsked(() => call("AdminService", "GetCacheStats", {}), EVERY_MS);
  return html`
    ${error && html`<${Failure} error=${error} />`}
    ${!value && !error && html`<p class="empty" role="status">Asking the cache…</p>`}
    ${value && html`<${Tiers} tiers=${value.tiers ?? []} /><${Models} models=${value.models ?? []} />`}
    <${Invalidation} onDone=${again} />
  `;
}

function Tiers({ tiers }) {
  return html`
    <section class="stack">
      <h2>Tiers</h2>
      <div class="tiers">
        ${tiers.map(
          (tier) => html`
            <div key=${tier.name} class="card tier">
              <div class="row">
                <h3>${tier.name}</h3>
                <span class=${`badge ${tier.trouble ? "bad" : "good"}`}>${tier.trouble ? "left out" : "in use"}</span>
              </div>
              <p class="numbers">${count(tier.entries)} answers, ${bytes(tier.bytes)}${num(tier.maxBytes) > 0 ? ` of ${bytes(tier.maxBytes)}` : ""}</p>
              ${num(tier.maxBytes) > 0 &&
              html`<meter class="share wide" min="0" max=${num(tier.maxBytes)} value=${num(tier.bytes)} aria-label=${`${tier.name}: room taken`}></meter>`}
              <p class="soft small numbers">
                ${count(tier.hits)} hits, ${count(tier.misses)} misses${num(tier.errors) > 0 ? `, ${count(tier.errors)} errors` : ""}
              </p>
              ${tier.location && html`<p class="soft tiny break"><code>${tier.location}</code></p>`}
              ${tier.trouble && html`<p class="alert small"><bdi>${tier.trouble}</bdi></p>`}
            </div>
          `,
        )}
      </div>
    </section>
  `;
}

function Models({ models }) {
  if (models.length === 0) return html`<p class="soft">No model has been asked for anything yet.</p>`;
  return html`
    <section class="stack">
      <h2>By model</h2>
      <div class="scroll" role="region" aria-label="The cache by model" tabindex="0">
        <table class="numbers">
          <thead>
            <tr>
              <th>Model</th><th class="number">Hits</th><th class="number">Of lookups</th><th class="number">Joined</th>
              <th class="number">Stored</th><th class="number">Tokens saved</th><th class="number">Time saved</th>
            </tr>
          </thead>
          <tbody>
            ${models.map((one) => {
              const looked = num(one.hits) + num(one.misses);
              return html`
                <tr key=${one.model}>
                  <th scope="row"><bdi>${one.model}</bdi></th>
                  <td class="number">${count(one.hits)}</td>
                  <td class="number">${looked > 0 ? percent(num(one.hits) / looked) : "–"}</td>
                  <td class="number">${count(one.coalesced)}</td><td class="number">${count(one.stores)}</td>
                  <td class="number">${count(one.savedTokens)}</td><td class="number">${seconds(lasted(one.savedTime))}</td>
                </tr>
              `;
            })}
          </tbody>
        </table>
      </div>
      <p class="soft small">Counted since the server started.</p>
    </section>
  `;
}

function Invalidation({ onDone }) {
  const { entries } = useModels();
  const [what, setWhat] = useState("model");
  const [model, setModel] = useState("");
  const [key, setKey] = useState("");
  const [asks, setAsks] = useState(false);
  const [said, setSaid] = useState("");
  const models = entries.filter(({ kind }) => kind !== "route");
  const chosen = model || models[0]?.id || "";
  const request = { model: { model: chosen }, key: { key }, all: {} }[what];
  const told = { model: `every answer of ${chosen}`, key: `the answer with the key ${key.slice(0, 12)}…`, all: "every answer of every model" }[what];
  const submit = (event) => {
    event.preventDefault();
    setSaid("");
    setAsks(true);
  };
  const invalidate = async () => {
    const removed = num((await call("AdminService", "InvalidateCache", request)).removed);
    setSaid(`${count(removed)} ${removed === 1 ? "answer" : "answers"} removed.`);
    onDone();
  };
  return html`
    <section class="stack">
      <h2>Invalidate</h2>
      <form class="card row invalidation" onSubmit=${submit}>
        <label class="field">What
          <select value=${what} onChange=${(event) => setWhat(event.currentTarget.value)}>
            <option value="model">One model</option>
            <option value="key">One answer, by its key</option>
            <option value="all">Everything</option>
          </select>
        </label>
        ${what === "model" &&
        html`
          <label class="field grow">Model
            <select value=${chosen} onChange=${(event) => setModel(event.currentTarget.value)}>
              ${models.map(({ id }) => html`<option key=${id} value=${id}>${id}</option>`)}
            </select>
          </label>
        `}
        ${what === "key" &&
        html`
          <label class="field grow">Key
            <input value=${key} onInput=${(event) => setKey(event.currentTarget.value.trim())} required pattern=${KEY} autocomplete="off"
              spellcheck="false" title="64 hexadecimal digits; an answer's route has it" />
          </label>
        `}
        <button type="submit" class="danger">Invalidate…</button>
        <span role="status" class="soft">${said}</span>
      </form>
      ${asks &&
      html`
        <${Confirm} title="Invalidate?" yes="Invalidate" danger onYes=${invalidate} onClose=${() => setAsks(false)}>
          This makes ${told} unreachable at once, in all tiers. It cannot be undone: the models answer anew.
        <//>
      `}
    </section>
  `;
}
