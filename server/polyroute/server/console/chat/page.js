// The chat: conversations with a model, kept in the browser.

import { parameter, writeParameter } from "../location.js";
import { useModels } from "../models.js";
import { recall, remember } from "../memory.js";
import { ModelPicker } from "../picker.js";
import { html, useEffect, useRef, useState } from "../preact.js";
import { useStore } from "../store.js";
import { running, stop } from "./asking.js";
import { Composer } from "./composer.js";
import { Settings } from "./settings.js";
import { amend, begin, open, openShelf, shelf } from "./shelf.js";
import { Sidebar } from "./sidebar.js";
import { Thread } from "./thread.js";

const WIDE = matchMedia("(min-width: 60rem)");

/** The page `#/`. */
export function Page() {
  const conversation = useStore(open);
  const { entries, defaultModel, phase, error } = useModels();
  const [history, toggleHistory] = usePanel("history", true);
  const [settings, toggleSettings] = usePanel("settings", false);
  const settingsButton = useRef(null);
  const busy = useStore(running).has(conversation.id);
  const shelfPhase = useStore(shelf).phase;
  const model = conversation.model || defaultModel;
  const entry = entries.find(({ id }) => id === model) ?? null;

  const closeSettings = () => {
    toggleSettings();
    settingsButton.current.focus();
  };

  useEffect(() => {
    openShelf(parameter("model"));
  }, []);
  useEffect(() => {
    if (shelfPhase !== "loading") writeParameter("model", conversation.model || null);
  }, [conversation.model, shelfPhase]);
  useEffect(() => {
    const onKeyDown = (event) => event.key === "Escape" && !event.defaultPrevented && stop();
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, []);

  return html`
    <div class="chat" data-history=${String(history)} data-settings=${String(settings)}>
      <h1 class="unseen">Chat</h1>
      ${history && html`<${Sidebar} onLeave=${() => WIDE.matches || toggleHistory()} />`}
      <section class="chat-middle" aria-label="Conversation">
        <div class="chat-bar">
          <button type="button" class="quiet icon" aria-expanded=${String(history)} aria-label="Conversations"
            title="Conversations" onClick=${toggleHistory}><span aria-hidden="true">☰</span></button>
          <div class="grow"><${ModelPicker} value=${model} onChange=${(id) => amend({ model: id })} /></div>
          ${!history && html`
            <button type="button" class="quiet chat-new" aria-label="New chat" title="New chat" onClick=${begin}>
              <span aria-hidden="true">+</span><span class="chat-new-word">New chat</span>
            </button>
          `}
          <button type="button" class="quiet icon" aria-expanded=${String(settings)} aria-label="Parameters"
            title="Parameters" ref=${settingsButton} onClick=${toggleSettings}><span aria-hidden="true">⚙</span></button>
        </div>
        ${phase === "failed" && html`<p class="alert chat-notice" role="alert">The models are not known: ${error.message}</p>`}
        ${phase === "ready" && model && !entry && html`<p class="alert chat-notice" role="alert">No model or route is named <bdi>${model}</bdi>. Choose another.</p>`}
        <${Thread} conversation=${conversation} entry=${entry} busy=${busy} />
        <${Composer} key=${conversation.id} busy=${busy} ready=${Boolean(model) && shelfPhase !== "loading"} parameters=${conversation.parameters} />
      </section>
      ${settings && html`<${Settings} conversation=${conversation} entry=${entry} onClose=${closeSettings} />`}
    </div>
  `;
}

// Whether a panel is shown, kept for the next visit; on a narrow window it begins closed.
function usePanel(name, otherwise) {
  const [shown, setShown] = useState(WIDE.matches && (recall(name) ?? String(otherwise)) === "true");
  const toggle = () => {
    setShown(!shown);
    if (WIDE.matches) remember(name, String(!shown));
  };
  return [shown, toggle];
}
