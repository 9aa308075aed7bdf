// The chat: one conversation with a model.

import { ask } from "../answer.js";
import { AnswerView } from "../answer_view.js";
import { parameter, writeParameter } from "../location.js";
import { useModels } from "../models.js";
import { ModelPicker } from "../picker.js";
import { html, useRef, useState } from "../preact.js";

/** The page `#/`. */
export function Page() {
  const { entries, defaultModel, phase, error } = useModels();
  const [chosen, setChosen] = useState(parameter("model"));
  const [answer, setAnswer] = useState(null);
  const [prompt, setPrompt] = useState("");
  const running = useRef(null);
  const model = chosen ?? defaultModel;
  const busy = answer?.state === "streaming";
  const choose = (id) => {
    setChosen(id);
    writeParameter("model", id);
  };
  const send = () => {
    if (busy || !prompt.trim()) return;
    running.current = new AbortController();
    const chat = entries.find(({ id }) => id === model)?.chat ?? true;
    const input = chat ? { messages: { messages: [{ role: "user", content: prompt }] } } : { prompt };
    ask({ model, ...input }, { signal: running.current.signal, onChange: setAnswer });
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === "Escape") running.current?.abort();
  };
  if (phase === "failed") return html`<p class="empty">The models are not known: ${error.message}</p>`;
  return html`
    <div class="chat">
      <h1 class="unseen">Chat</h1>
      <${ModelPicker} value=${model} onChange=${choose} />
      <label class="field">Message
        <textarea rows="4" value=${prompt} onInput=${(event) => setPrompt(event.currentTarget.value)} onKeyDown=${onKeyDown} />
      </label>
      <div class="row">
        <button type="button" class="primary" disabled=${busy || !prompt.trim()} onClick=${send}>Send</button>
        <button type="button" disabled=${!busy} onClick=${() => running.current?.abort()}>Stop</button>
      </div>
      ${answer && html`<${AnswerView} answer=${answer} />`}
    </div>
  `;
}
