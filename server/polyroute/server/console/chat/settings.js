// The system prompt and the parameters of the open conversation.

import { readParameters } from "../parameter_fields.js";
import { Parameters } from "../parameters.js";
import { html } from "../preact.js";
import { WouldHappen } from "../would_happen.js";
import { pathOf, requestOf } from "./conversation.js";
import { amend } from "./shelf.js";

const NEXT = { role: "user", content: "…" }; // whatever it says, it goes the same way

/** The panel beside a conversation. */
export function Settings({ conversation, entry, onClose }) {
  const { system, parameters } = conversation;
  const some = system || Object.values(parameters).some(Boolean);
  return html`
    <aside class="chat-settings" aria-label="Parameters">
      <div class="row">
        <h2 class="grow">Parameters</h2>
        <button type="button" class="quiet small" disabled=${!some}
          onClick=${() => amend({ system: "", parameters: {} })}>Clear</button>
        <button type="button" class="quiet icon" aria-label="Close the parameters" onClick=${onClose}>✕</button>
      </div>
      <p class="small soft">What is left empty is the model's own.</p>
      <label class="field">System prompt
        <textarea rows="4" value=${system} placeholder="none"
          onInput=${(event) => amend({ system: event.currentTarget.value })}></textarea>
      </label>
      <${Parameters} value=${parameters} entry=${entry} onChange=${(changed) => amend({ parameters: changed })} />
      ${entry && html`<${WouldHappen} request=${nextRequest(conversation, entry)} />`}
    </aside>
  `;
}

function nextRequest(conversation, { id, chat }) {
  const { fields } = readParameters(conversation.parameters);
  return requestOf({ ...conversation, model: id }, [...pathOf(conversation), NEXT], fields, { chat });
}
