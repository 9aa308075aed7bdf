// Asks once more before something is done that others feel.

import { html, useEffect, useRef, useState } from "../preact.js";
import { Failure } from "../answer_view.js";

/**
 * A dialog that asks `title`, explains by its children, and calls `onYes(reason)`, which may return a promise: the
 * dialog stays until it is kept, and shows why where it is not. `reason` is `required`, `optional` or absent.
 */
export function Confirm({ title, yes, danger, reason, onYes, onClose, children }) {
  const dialog = useRef(null);
  const [why, setWhy] = useState("");
  const [state, setState] = useState({ busy: false, error: null });
  useEffect(() => {
    dialog.current.showModal();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    setState({ busy: true, error: null });
    try {
      await onYes(why.trim());
      dialog.current?.close();
    } catch (error) {
      setState({ busy: false, error });
    }
  };
  return html`
    <dialog ref=${dialog} aria-labelledby="confirm-title" onClose=${onClose}>
      <form class="confirm" onSubmit=${submit}>
        <h2 id="confirm-title">${title}</h2>
        <div class="soft">${children}</div>
        ${reason &&
        html`
          <label class="field">Reason${reason === "optional" ? " (optional)" : ""}
            <input value=${why} onInput=${(event) => setWhy(event.currentTarget.value)} maxlength="500"
              required=${reason === "required"} autocomplete="off" placeholder="Kept in the history" />
          </label>
        `}
        ${state.error && html`<${Failure} error=${state.error} />`}
        <div class="row confirm-buttons">
          <button type="button" onClick=${() => dialog.current.close()}>Cancel</button>
          <button type="submit" class=${danger ? "primary danger" : "primary"} disabled=${state.busy}>
            ${state.busy ? "Working…" : yes}
          </button>
        </div>
      </form>
    </dialog>
  `;
}
