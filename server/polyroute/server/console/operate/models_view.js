// The models: how each stands, its replicas, and loading and unloading them.

import { call } from "../api.js";
import { Failure } from "../answer_view.js";
import { refreshModels, useModels } from "../models.js";
import { html, useState } from "../preact.js";
import { useAct } from "./asking.js";
import { Confirm } from "./confirm.js";
import { count, num, percent, word } from "./figures.js";

const TONES = { warm: "good", loading: "busy", draining: "busy", failed: "bad", cold: "quiet" };
const BREAKERS = { BREAKER_STATE_OPEN: ["open", "bad"], BREAKER_STATE_HALF_OPEN: ["half open", "busy"] };

/** The view `#/operate/models`. */
export function ModelsView() {
  const { phase, entries, error } = useModels();
  const [sought, setSought] = useState("");
  const models = entries.filter(({ kind }) => kind !== "route");
  const shown = models.filter(({ id }) => id.toLowerCase().includes(sought.toLowerCase()));
  if (phase === "loading") return html`<p class="empty" role="status">Asking for the models…</p>`;
  if (phase === "failed" && error) return html`<${Failure} error=${error} />`;
  return html`
    ${models.length > 8 &&
    html`
      <label class="field seek">Find a model
        <input type="search" value=${sought} onInput=${(event) => setSought(event.currentTarget.value)} />
      </label>
    `}
    <${Totals} models=${models} />
    <ul class="fleet" aria-label="Models">
      ${shown.map((entry) => html`<${ModelCard} key=${entry.id} entry=${entry} />`)}
    </ul>
    ${shown.length === 0 && html`<p class="empty">No model's name has “${sought}” in it.</p>`}
  `;
}

function Totals({ models }) {
  const ready = models.filter(({ state }) => state === "warm").length;
  const sum = (name) => models.reduce((total, entry) => total + entry[name], 0);
  return html`
    <p class="soft small numbers">
      ${ready} of ${models.length} ready · ${count(sum("inFlight"))} in flight · ${count(sum("queued"))} waiting
    </p>
  `;
}

function ModelCard({ entry }) {
  return html`
    <li class="card model">
      <div class="row">
        <h2 class="model-name"><bdi>${entry.id}</bdi></h2>
        ${entry.badges.map(({ text, tone, title }) => html`<span key=${text} class=${`badge ${tone}`} title=${title}>${text}</span>`)}
        ${entry.isDefault && html`<span class="badge new" title="answers requests that name no model">default</span>`}
        <span class="grow"></span>
        <${Actions} entry=${entry} />
      </div>
      <dl class="facts numbers">
        <div><dt>Kind</dt><dd>${entry.kind}</dd></div>
        <div><dt>Version</dt><dd class="cut" title=${entry.version}>${entry.version || "–"}</dd></div>
        <div><dt>Permits</dt><dd><${Share} part=${entry.inFlight} whole=${entry.maxConcurrency} name="permits in use" /></dd></div>
        <div><dt>Queue</dt><dd><${Share} part=${entry.queued} whole=${entry.maxQueue} name="queue" /></dd></div>
        <div><dt>Context</dt><dd>${entry.contextLength ? `${count(entry.contextLength)} tokens` : "–"}</dd></div>
      </dl>
      ${entry.detail && html`<p class=${entry.state === "failed" ? "alert" : "soft small"}><bdi>${entry.detail}</bdi></p>`}
      ${entry.replicas.length > 0 && html`<${Replicas} entry=${entry} />`}
    </li>
  `;
}

function Share({ part, whole, name }) {
  const full = whole > 0 && part >= whole;
  return html`
    <span class=${full ? "bad-text" : ""}>${count(part)} of ${count(whole)}</span>
    ${whole > 0 && html`<meter class="share" min="0" max=${whole} value=${Math.min(part, whole)} aria-label=${name}></meter>`}
  `;
}

function Replicas({ entry }) {
  const ill = entry.replicas.some(({ state, breaker }) => state === "MODEL_STATE_FAILED" || BREAKERS[breaker]);
  return html`
    <details class="replicas" open=${ill}>
      <summary>${entry.replicas.length === 1 ? "1 replica" : `${entry.replicas.length} replicas`}</summary>
      <ul>
        ${entry.replicas.map(
          (replica) => html`<${ReplicaLine} key=${replica.name} replica=${replica} told=${replica.detail === entry.detail} />`,
        )}
      </ul>
    </details>
  `;
}

// `told`: what there is to say of it stands above already.
function ReplicaLine({ replica, told }) {
  const state = word(replica.state, "MODEL_STATE_");
  const breaker = BREAKERS[replica.breaker];
  const weight = replica.weight ?? 1;
  return html`
    <li>
      <div class="row">
        <code class="replica-name">${replica.name}</code>
        <span class=${`badge ${TONES[state] ?? "quiet"}`}>${state}</span>
        ${breaker && html`<span class=${`badge ${breaker[1]}`} title="whether calls are sent to it">breaker ${breaker[0]}</span>`}
        <span class="soft small numbers">
          ${count(replica.inFlight)} in flight
          ${weight < 1 ? ` · ${percent(weight)} of its load` : ""}
          ${num(replica.ejections) > 0 ? ` · breaker opened ${count(replica.ejections)}×` : ""}
        </span>
      </div>
      ${replica.detail && !told && html`<p class="soft small"><bdi>${replica.detail}</bdi></p>`}
    </li>
  `;
}

function Actions({ entry }) {
  const [asks, setAsks] = useState(false);
  const { busy, error, run } = useAct();
  const load = () => run(() => call("AdminService", "LoadModel", { model: entry.id })).then(refreshModels);
  const unload = () => call("AdminService", "UnloadModel", { model: entry.id }).then(refreshModels);
  const local = entry.kind === "local";
  const loadable = ["cold", "failed"].includes(entry.state);
  return html`
    ${loadable &&
    html`<button type="button" class="small" disabled=${busy} onClick=${load} aria-label=${`${local ? "Load" : "Reach again"}: ${entry.id}`}>
      ${local ? "Load" : "Reach again"}
    </button>`}
    ${local &&
    !loadable &&
    html`<button type="button" class="small" disabled=${entry.state === "draining"} onClick=${() => setAsks(true)}
      aria-label=${`Unload: ${entry.id}`}>Unload</button>`}
    ${error && html`<span class="field-error" role="alert">${error.message}</span>`}
    ${asks &&
    html`
      <${Confirm} title=${`Unload ${entry.id}?`} yes="Unload" onYes=${unload} onClose=${() => setAsks(false)}>
        Its ${entry.inFlight === 1 ? "call" : `${entry.inFlight} calls`} in flight may finish, then its memory is free. The next call
        to it loads it again${entry.isDefault ? "; it is the default, and the server is not ready until then" : ""}.
      <//>
    `}
  `;
}
