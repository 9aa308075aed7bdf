// Why an answer went the way that it did.

import { html } from "./preact.js";

/** The route of an `Answer`, in words. */
export function Why({ answer }) {
  const { route } = answer;
  const rows = [
    ["Model", route.model],
    ["Version", route.version],
    ["Deployment", route.deployment],
    ["Replica", route.replica],
    ["Variant", route.variant],
    ["Cache", (route.cache ?? "").replace("CACHE_RESULT_", "").toLowerCase()],
    ["Reasons", (route.reasons ?? []).join("; ")],
    ["Trace", route.traceId],
    ["Request", answer.requestId],
  ];
  return html`
    <details class="why">
      <summary>Why this way</summary>
      <dl>
        ${rows.filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd><bdi>${value}</bdi></dd>`)}
      </dl>
    </details>
  `;
}
