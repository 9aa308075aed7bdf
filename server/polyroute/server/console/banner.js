// Says that the server is away, and when it is asked again.

import { connection, refreshModels } from "./models.js";
import { html, useEffect, useState } from "./preact.js";
import { useStore } from "./store.js";

const TICK_MS = 1_000;

/** Shown while the server cannot be reached; gone as soon as it is back. */
export function Banner() {
  const { online, retryAt } = useStore(connection);
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (online) return undefined;
    setNow(Date.now());
    const ticking = setInterval(() => setNow(Date.now()), TICK_MS);
    return () => clearInterval(ticking);
  }, [online, retryAt]);
  if (online) return null;
  const left = Math.max(0, Math.ceil((retryAt - now) / 1_000));
  return html`
    <aside class="banner" aria-label="Connection">
      <span role="alert">The server cannot be reached. What is on this page is kept.</span>
      <span class="soft">${left > 0 ? `Next try in ${left} s.` : "Trying…"}</span>
      <button type="button" onClick=${refreshModels}>Try now</button>
    </aside>
  `;
}
