// Where the next message is written.

import { readParameters } from "../parameter_fields.js";
import { html, useEffect, useRef, useState } from "../preact.js";
import { send, stop } from "./asking.js";
import { useFocusKept } from "./focus.js";

/** The field and its button: Enter sends, Shift+Enter begins a line, Escape stops. */
export function Composer({ busy, ready, parameters }) {
  const [text, setText] = useState("");
  const field = useRef(null);
  const problems = Object.keys(readParameters(parameters).problems);
  const able = ready && !busy && text.trim() !== "" && problems.length === 0;
  useEffect(() => field.current.focus({ preventScroll: true }), []);
  useFocusKept(busy, field); // the button that was pressed is gone

  const submit = (event) => {
    event.preventDefault();
    if (!able) return;
    setText("");
    send(text);
    field.current.focus();
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  return html`
    <form class="composer" onSubmit=${submit} aria-label="Message">
      <textarea ref=${field} rows="1" aria-label="Message" placeholder="Ask something" value=${text}
        onInput=${(event) => setText(event.currentTarget.value)} onKeyDown=${onKeyDown}></textarea>
      ${busy
        ? html`<button key="stop" type="button" onClick=${() => stop()}>Stop</button>`
        : html`<button key="send" type="submit" class="primary" disabled=${!able}>Send</button>`}
      <p class="composer-note tiny soft">
        ${problems.length > 0
          ? html`<span class="field-error">A parameter is wrong: ${problems.join(", ")}</span>`
          : html`<kbd>Enter</kbd> sends, <kbd>Shift</kbd>+<kbd>Enter</kbd> begins a line, <kbd>Esc</kbd> stops`}
      </p>
    </form>
  `;
}
