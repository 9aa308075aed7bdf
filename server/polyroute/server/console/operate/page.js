// Operate: how the server runs, and what an operator can change.

import { page } from "../location.js";
import { html, useEffect, useState } from "../preact.js";
import { session } from "../session.js";
import { useStore } from "../store.js";
import { CacheView } from "./cache_view.js";
import { ChartsView } from "./charts_view.js";
import { ConfigView } from "./config_view.js";
import { ExperimentsView } from "./experiments_view.js";
import { ModelsView } from "./models_view.js";
import { watchTraffic } from "./sampler.js";

const VIEWS = {
  models: { title: "Models", View: ModelsView },
  load: { title: "Load", View: ChartsView },
  experiments: { title: "Experiments", View: ExperimentsView },
  cache: { title: "Cache", View: CacheView },
  configuration: { title: "Configuration", View: ConfigView },
};

/** `{view, about}` of an address such as `#/operate/experiments/chat`; IDs may have slashes. */
export function placeOf(hash) {
  const [, view = "", ...about] = hash.replace(/^#\/?/, "").split("/");
  return { view: view in VIEWS ? view : "models", about: decodeURIComponent(about.join("/")) };
}

/** The page `#/operate`, and everything below it. */
export function Page() {
  const [place, setPlace] = useState(placeOf(location.hash));
  const { operate, operate_refused: refused, version } = useStore(session);
  useEffect(() => {
    const moved = () => page.get() === "operate" && setPlace(placeOf(location.hash));
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => {
    if (operate) watchTraffic();
  }, [operate]);
  const { View } = VIEWS[place.view];
  return html`
    <div class="operate">
      <div class="operate-head">
        <h1>Operate</h1>
        <nav class="tabs" aria-label="Operate">
          ${Object.entries(VIEWS).map(
            ([name, { title }]) => html`
              <a key=${name} href=${`#/operate/${name}`} aria-current=${name === place.view ? "page" : null}>${title}</a>
            `,
          )}
        </nav>
      </div>
      ${operate ? html`<${View} about=${place.about} />` : html`<${Closed} known=${version !== ""} why=${refused} />`}
    </div>
  `;
}

function Closed({ known, why }) {
  if (!known) return html`<p class="empty" role="status">Asking the server what you may do…</p>`;
  return html`
    <div class="empty">
      <h2>You may not operate this server from here</h2>
      <p>It says: ${why || "operating is not offered on this address"}.</p>
      <p class="small">
        <code>console: {operate: local | all | off}</code> of <code>models.yaml</code> decides. The command line has the same on
        the admin address: <code>polyroute --help</code>.
      </p>
    </div>
  `;
}
