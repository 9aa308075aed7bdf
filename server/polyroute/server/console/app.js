// The console: the frame around its pages, and the page that the address names.

import { Banner } from "./banner.js";
import { page } from "./location.js";
import { watchModels, connection } from "./models.js";
import { html, render, useEffect, useState } from "./preact.js";
import { openSession, session } from "./session.js";
import { useStore } from "./store.js";
import { nextTheme, theme } from "./theme.js";

// A page is loaded when it is first shown; each module exports `Page`.
const PAGES = {
  chat: { title: "Chat", load: () => import("./chat/page.js") },
  compare: { title: "Compare", load: () => import("./compare/page.js") },
  operate: { title: "Operate", load: () => import("./operate/page.js") },
};

function App() {
  const current = useStore(page);
  useEffect(() => {
    document.title = `${PAGES[current].title} · Polyroute`;
  }, [current]);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <${Header} current=${current} />
    <${Banner} />
    <main id="main" tabindex="-1"><${Loaded} key=${current} name=${current} /></main>
  `;
}

function skip(event) {
  event.preventDefault(); // the fragment names the page
  document.getElementById("main").focus();
}

function Header({ current }) {
  const { operate, version } = useStore(session);
  const shown = Object.entries(PAGES).filter(([name]) => name !== "operate" || operate || current === "operate");
  return html`
    <header class="frame-header">
      <span class="brand" title=${version && `Polyroute ${version}`}>
        <img src="console/icon.svg" alt="" width="20" height="20" /> Polyroute
      </span>
      <nav aria-label="Pages">
        ${shown.map(
          ([name, { title }]) => html`
            <a href=${name === "chat" ? "#/" : `#/${name}`} aria-current=${name === current ? "page" : null}>${title}</a>
          `,
        )}
      </nav>
      <${ThemeButton} />
    </header>
  `;
}

function ThemeButton() {
  const chosen = useStore(theme);
  const signs = { system: "◐", light: "☀", dark: "☾" };
  return html`
    <button class="quiet icon" type="button" onClick=${nextTheme} title=${`Theme: ${chosen}`}
      aria-label=${`Theme: ${chosen}. Change it`}><span aria-hidden="true">${signs[chosen]}</span></button>
  `;
}

function Loaded({ name }) {
  const [loaded, setLoaded] = useState({ Page: null, error: null });
  const load = () => {
    setLoaded({ Page: null, error: null });
    PAGES[name].load().then(
      ({ Page }) => setLoaded({ Page, error: null }),
      (error) => setLoaded({ Page: null, error }),
    );
  };
  useEffect(load, [name]);
  if (loaded.Page) return html`<${loaded.Page} />`;
  if (!loaded.error) return html`<p class="empty" role="status">Loading ${PAGES[name].title}…</p>`;
  return html`
    <div class="empty" role="alert">
      <p>${PAGES[name].title} could not be loaded: ${loaded.error.message}</p>
      <button type="button" onClick=${() => globalThis.location.reload()}>Load the console anew</button>
    </div>
  `;
}

watchModels();
openSession();
connection.subscribe(({ online }) => online && !session.get().version && openSession());
const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
