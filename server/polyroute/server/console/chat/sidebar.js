// The conversations that the browser keeps: search, open, rename, delete, export, import.

import { html, useRef, useState } from "../preact.js";
import { useStore } from "../store.js";
import { stop } from "./asking.js";
import { asJson, asMarkdown, download, fileName, readFile } from "./files.js";
import { useFocusKept } from "./focus.js";
import { begin, matching, open, remove, rename, save, shelf, show } from "./shelf.js";

/** The panel at the side; `onLeave()` is called when a conversation was chosen. */
export function Sidebar({ onLeave }) {
  const { phase, conversations, problem } = useStore(shelf);
  const current = useStore(open).id;
  const [query, setQuery] = useState("");
  const found = matching(conversations, query);
  const leaveTo = (step) => () => {
    step();
    onLeave();
  };
  return html`
    <aside class="chat-history" aria-label="Conversations">
      <div class="row">
        <h2 class="grow">Conversations</h2>
        <button type="button" class="small" onClick=${leaveTo(begin)}>New chat</button>
      </div>
      <input type="search" aria-label="Search conversations" placeholder="Search" value=${query}
        onInput=${(event) => setQuery(event.currentTarget.value)} />
      ${problem && html`<p class="alert small" role="alert">This browser keeps no conversations: ${problem}</p>`}
      <ul class="conversations">
        ${found.map(
          (conversation) => html`
            <${Item} key=${conversation.id} conversation=${conversation} current=${conversation.id === current}
              onOpen=${leaveTo(() => show(conversation))} />
          `,
        )}
      </ul>
      ${found.length === 0 && html`<p class="small soft">${nothing(phase, query)}</p>`}
      <${Files} conversations=${conversations} />
    </aside>
  `;
}

function nothing(phase, query) {
  if (phase === "loading") return "Reading the conversations…";
  return query ? `No conversation has “${query}” in it.` : "None yet.";
}

function Item({ conversation, current, onOpen }) {
  const [mode, setMode] = useState("shown");
  const more = useRef(null);
  useFocusKept(mode, more);
  const { id } = conversation;
  const title = conversation.title || "Untitled";
  const drop = () => {
    stop(id);
    remove(id);
  };
  if (mode === "renaming") {
    const done = (event) => {
      event.preventDefault();
      rename(id, event.currentTarget.elements.title.value);
      setMode("shown");
    };
    return html`
      <li>
        <form class="row" onSubmit=${done}>
          <input name="title" aria-label="Title" defaultValue=${title} value=${title} autofocus
            onKeyDown=${(event) => event.key === "Escape" && (event.preventDefault(), setMode("shown"))} />
          <button type="submit" class="small">Rename</button>
        </form>
      </li>
    `;
  }
  return html`
    <li class="conversation" aria-current=${current ? "true" : null}>
      <button type="button" class="quiet conversation-open" onClick=${onOpen} title=${title}>
        <bdi>${title}</bdi><span class="tiny soft">${when(conversation.updatedAt)}</span>
      </button>
      <details class="menu" onToggle=${closeOthers} onKeyDown=${closeOnEscape}>
        <summary ref=${more} aria-label=${`More for ${title}`} title="More">⋯</summary>
        <div class="menu-pop">
          <button type="button" class="quiet small" onClick=${() => setMode("renaming")}>Rename</button>
          <button type="button" class="quiet small" onClick=${() => exportOne(conversation, "md")}>Export as Markdown</button>
          <button type="button" class="quiet small" onClick=${() => exportOne(conversation, "json")}>Export as JSON</button>
          ${mode === "deleting"
            ? html`<button key="sure" type="button" class="danger small" onClick=${drop}>Delete for good</button>`
            : html`<button key="ask" type="button" class="quiet danger small" onClick=${() => setMode("deleting")}>Delete…</button>`}
        </div>
      </details>
    </li>
  `;
}

function closeOthers(event) {
  if (!event.currentTarget.open) return;
  for (const other of document.querySelectorAll(".conversations details[open]")) {
    if (other !== event.currentTarget) other.open = false;
  }
}

function closeOnEscape(event) {
  const { currentTarget: menu } = event;
  if (event.key !== "Escape" || !menu.open) return;
  event.preventDefault();
  menu.open = false;
  menu.firstElementChild.focus();
}

function exportOne(conversation, ending) {
  if (ending === "md") download(fileName(conversation.title, "md"), "text/markdown", asMarkdown(conversation));
  else download(fileName(conversation.title, "json"), "application/json", asJson([conversation]));
}

function Files({ conversations }) {
  const [problem, setProblem] = useState("");
  const field = useRef(null);
  const read = async (event) => {
    const [file] = event.currentTarget.files;
    if (!file) return;
    try {
      const told = readFile(await file.text());
      for (const conversation of told) await save(conversation);
      if (told.length > 0) show(told[0]);
      setProblem("");
    } catch (error) {
      setProblem(`${file.name}: ${error.message}`);
    }
    field.current.value = "";
  };
  return html`
    <div class="conversation-files">
      <button type="button" class="quiet small" disabled=${conversations.length === 0}
        onClick=${() => download("conversations.json", "application/json", asJson(conversations))}>Export all</button>
      <button type="button" class="quiet small" onClick=${() => field.current.click()}>Import…</button>
      <input type="file" ref=${field} hidden accept="application/json,.json" aria-label="Import conversations" onChange=${read} />
      ${problem && html`<p class="alert small" role="alert">${problem}</p>`}
    </div>
  `;
}

function when(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return today
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
}
