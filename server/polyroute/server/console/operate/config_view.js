// The configuration as it runs, how its last reload went, and reloading it.

import { call } from "../api.js";
import { Failure } from "../answer_view.js";
import { refreshModels } from "../models.js";
import { html, useState } from "../preact.js";
import { useAct, useAsked } from "./asking.js";
import { Confirm } from "./confirm.js";
import { moment } from "./figures.js";

const EVERY_MS = 5_000;
const TRIGGERS = { SIGHUP: "by SIGHUP", file: "because the file had changed", call: "by an operator" };

/** The view `#/operate/configuration`. */
export function ConfigView() {
  const [defaults, setDefaults] = useState(false);
  const { value, error, again } = useAsked(() => call("AdminService", "GetConfig", { defaults }), EVERY_MS, [defaults]);
  if (error && !value) return html`<${Failure} error=${error} />`;
  return html`
    ${value && html`<${Source} config=${value} onReloaded=${again} />`}
    <section class="stack">
      <div class="row">
        <h2 class="grow">As it runs</h2>
        <label class="check">
          <input type="checkbox" checked=${defaults} onChange=${(event) => setDefaults(event.currentTarget.checked)} />
          with what the file leaves out
        </label>
      </div>
      ${value
        ? html`<pre class="card yaml" tabindex="0" role="region" aria-label="Configuration as YAML"><code>${value.yaml}</code></pre>`
        : html`<p class="soft" role="status">Asking for the configuration…</p>`}
      <p class="soft small">Secrets are hidden; times are in seconds, sizes in bytes.</p>
    </section>
  `;
}

function Source({ config, onReloaded }) {
  const [asks, setAsks] = useState(false);
  const [checked, setChecked] = useState(null);
  const { busy, error, run } = useAct();
  const check = async () => setChecked(await run(() => call("AdminService", "Reload", { dryRun: true })));
  const reload = async () => {
    setChecked(null);
    await call("AdminService", "Reload", {});
    onReloaded();
    refreshModels();
  };
  return html`
    <section class="card stack">
      <div class="row">
        <div class="grow">
          <p>${config.file ? html`<code class="break">${config.file}</code>` : "No file: one model, from flags and environment"}</p>
          <p class="soft small numbers">In force since ${moment(config.inForceSince)} · <code title="digest">${config.configHash.slice(0, 12)}</code></p>
        </div>
        ${config.file &&
        html`
          <button type="button" onClick=${check} disabled=${busy}>Check the file</button>
          <button type="button" class="primary" onClick=${() => setAsks(true)}>Reload…</button>
        `}
      </div>
      ${error && html`<${Failure} error=${error} />`}
      ${checked && html`<div role="status"><h3>The file, checked just now</h3><${Outcome} outcome=${checked} dry /></div>`}
      ${config.lastReload && html`<${LastReload} last=${config.lastReload} />`}
      ${asks &&
      html`
        <${Confirm} title="Reload the configuration?" yes="Reload" onYes=${reload} onClose=${() => setAsks(false)}>
          The file is read again and put in force in one step; calls in flight finish as they began. A file with mistakes changes nothing.
        <//>
      `}
    </section>
  `;
}

function LastReload({ last }) {
  return html`
    <div>
      <h3>Last reload <span class="soft small numbers">${moment(last.time)}, ${TRIGGERS[last.trigger] ?? last.trigger}</span></h3>
      ${last.outcome ? html`<${Outcome} outcome=${last.outcome} />` : html`<p class="alert">It failed: ${last.error}</p>`}
    </div>
  `;
}

function Outcome({ outcome, dry }) {
  const problems = outcome.problems ?? [];
  if (problems.length > 0) {
    return html`
      <div class="alert">
        <p>${problems.length === 1 ? "A mistake" : `${problems.length} mistakes`}; nothing was changed.</p>
        <ul class="problems">
          ${problems.map(
            ({ file, line, path, message }) => html`
              <li key=${`${line} ${path} ${message}`}><code>${file}:${line}</code> ${path && html`<code>${path}</code>: `}<bdi>${message}</bdi></li>
            `,
          )}
        </ul>
      </div>
    `;
  }
  const kinds = ["added", "removed", "rebuilt", "adjusted"].filter((kind) => (outcome[kind] ?? []).length > 0);
  const otherwise = dry
    ? "No mistakes; no model would change."
    : outcome.changed
      ? "Changed: no model, but routes or settings."
      : "The file says what was in force already.";
  return html`
    ${kinds.length === 0 && html`<p>${otherwise}</p>`}
    <ul class="plain">
      ${kinds.map((kind) => html`<li key=${kind}>${dry ? `would be ${kind}` : kind}: <bdi>${outcome[kind].join(", ")}</bdi></li>`)}
      ${(outcome.needsRestart ?? []).map((key) => html`<li key=${key} class="soft">takes effect at the next start: <code>${key}</code></li>`)}
    </ul>
  `;
}
