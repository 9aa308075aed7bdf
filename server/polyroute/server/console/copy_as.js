// The request of an answer, to be run elsewhere.

import { copyText } from "./clipboard.js";
import { openai } from "./copy/openai.js";
import { python } from "./copy/python.js";
import { curl, grpcurl } from "./copy/shell.js";
import { html, useState } from "./preact.js";
import { session } from "./session.js";
import { useStore } from "./store.js";

const FORMS = [
  { name: "grpcurl", write: grpcurl },
  { name: "curl", write: curl },
  { name: "Python", write: python },
  { name: "OpenAI SDK", write: openai },
];
const TOLD_MS = 2_000;

/** The request of an `Answer` (answer.js) in four forms, each of which runs as it is against this server. */
export function CopyAs({ answer }) {
  const [open, setOpen] = useState(false);
  return html`
    <details class="copy-as" onToggle=${(event) => setOpen(event.currentTarget.open)}>
      <summary>Copy as…</summary>
      ${open && html`<${Forms} answer=${answer} />`}
    </details>
  `;
}

function Forms({ answer }) {
  const { grpc_port: port } = useStore(session);
  const [chosen, setChosen] = useState(0);
  const [told, setTold] = useState("");
  const text = FORMS[chosen].write(answer.request, serverOf(answer, port));
  const copy = async () => {
    setTold((await copyText(text)) ? "Copied" : "Not allowed: select the text instead");
    setTimeout(() => setTold(""), TOLD_MS);
  };
  return html`
    <div class="row">
      <div class="segments" role="group" aria-label="Form">
        ${FORMS.map(({ name }, at) => html`
          <button key=${name} type="button" class="small" aria-pressed=${at === chosen} onClick=${() => setChosen(at)}>${name}</button>
        `)}
      </div>
      <button type="button" class="small" onClick=${copy}>Copy</button>
      <span class="soft small" role="status">${told}</span>
    </div>
    <pre class="copy-text" tabindex="0" aria-label=${`The request as ${FORMS[chosen].name}`}>${text}</pre>
  `;
}

// Where this server is, as this browser reaches it.
function serverOf({ request, route }, port) {
  const { hostname } = new URL(document.baseURI);
  return { grpc: `${hostname}:${port}`, url: document.baseURI, model: request.model || route?.requested || "" };
}
