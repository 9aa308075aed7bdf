// The routes that split traffic: the rollout and the report of each.

import { call } from "../api.js";
import { Failure } from "../answer_view.js";
import { useModels } from "../models.js";
import { html } from "../preact.js";
import { session } from "../session.js";
import { useStore } from "../store.js";
import { useAsked } from "./asking.js";
import { percent } from "./figures.js";
import { Report } from "./report.js";
import { RolloutCard } from "./rollout.js";

const ROLLOUTS_MS = 3_000;
const REPORT_MS = 10_000;

/** The view `#/operate/experiments/ROUTE`; without a route, of the first one. */
export function ExperimentsView({ about }) {
  const { phase, entries } = useModels();
  const { experiments } = useStore(session);
  const rollouts = useAsked(listRollouts, ROLLOUTS_MS);
  const routes = entries.filter(({ kind, variants }) => kind === "route" && variants.length > 1);
  const route = routes.find(({ id }) => id === about) ?? routes[0];
  if (phase === "loading") return html`<p class="empty" role="status">Asking for the routes…</p>`;
  if (!route) return html`<${Nothing} />`;
  const rollout = rollouts.value?.find((one) => one.route === route.id);
  return html`
    <div class="beside">
      <nav class="routes" aria-label="Routes">
        ${routes.map(
          ({ id, variants, rollout: rolling }) => html`
            <a key=${id} href=${`#/operate/experiments/${encodeURI(id)}`} aria-current=${id === route.id ? "page" : null}>
              <bdi>${id}</bdi>
              <span class="soft tiny numbers">
                ${variants.map(({ name, share }) => `${name} ${percent(share ?? 0)}`).join(" · ")}${rolling ? " · rollout" : ""}
              </span>
            </a>
          `,
        )}
      </nav>
      <div class="stack" key=${route.id}>
        <h2 class="unseen">${route.id}</h2>
        ${rollouts.error && html`<${Failure} error=${rollouts.error} />`}
        ${rollout && html`<${RolloutCard} rollout=${rollout} onChanged=${rollouts.again} />`}
        ${experiments
          ? html`<${ReportCard} route=${route.id} />`
          : html`<p class="notice">This server keeps no records of experiments, so there is no report: it has no state database.</p>`}
      </div>
    </div>
  `;
}

function ReportCard({ route }) {
  const { value, error } = useAsked(() => call("AdminService", "GetExperimentReport", { route }), REPORT_MS, [route]);
  return html`
    <section class="stack" aria-label=${`Report on ${route}`}>
      <h2>Report</h2>
      ${error && html`<${Failure} error=${error} />`}
      ${value ? html`<${Report} report=${value} />` : !error && html`<p class="soft" role="status">Working it out…</p>`}
    </section>
  `;
}

function Nothing() {
  return html`
    <div class="empty">
      <h2>No route splits traffic</h2>
      <p>A route with <code>variants</code> in <code>models.yaml</code> is an experiment, and with <code>rollout</code> it moves by itself.</p>
    </div>
  `;
}

async function listRollouts() {
  const found = [];
  let pageToken = "";
  do {
    const page = await call("AdminService", "ListRollouts", { pageSize: 1000, pageToken });
    found.push(...(page.rollouts ?? []));
    pageToken = page.nextPageToken ?? "";
  } while (pageToken);
  return found;
}
