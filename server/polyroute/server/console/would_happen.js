// What would become of a request, before it is sent.

import { call } from "./api.js";
import { html, useEffect, useState } from "./preact.js";
import { planSteps } from "./why/steps.js";
import { Steps } from "./why.js";

const CALM_MS = 300;

/** The plan that a `GenerateRequest` would get now, folded away until it is wanted; nothing is run. */
export function WouldHappen({ request }) {
  const [open, setOpen] = useState(false);
  return html`
    <details class="why" onToggle=${(event) => setOpen(event.currentTarget.open)}>
      <summary>What would happen</summary>
      ${open && html`<${Plan} request=${request} />`}
    </details>
  `;
}

function Plan({ request }) {
  const [{ plan, error }, setTold] = useState({ plan: null, error: null });
  const asked = JSON.stringify(request);
  useEffect(() => {
    const controller = new AbortController();
    const timer = setTimeout(() => {
      call("ModelService", "ExplainRoute", { request: JSON.parse(asked) }, { signal: controller.signal }).then(
        (found) => setTold({ plan: found, error: null }),
        (failed) => failed.name === "AbortError" || setTold({ plan: null, error: failed }),
      );
    }, CALM_MS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [asked]);
  if (error) return html`<p class="alert" role="alert">It would be refused: <bdi>${error.message}</bdi></p>`;
  if (!plan) return html`<p class="soft" role="status">Asking…</p>`;
  return html`
    <${Steps} steps=${planSteps(plan)} label="The way that this request would go" />
    ${plan.stickyBy === "request" && html`<p class="soft small">Chance decides anew for each request.</p>`}
  `;
}
