// Several models side by side on one prompt.

import { firstPage, page, parameter, valuesInPage, writeParameter } from "../location.js";
import { refreshModels, useModels } from "../models.js";
import { html, useEffect, useState } from "../preact.js";
import { firstChoices, readWords } from "./choices.js";
import { Comparison, keptChoices } from "./comparison.js";

let asked = firstPage === "compare" ? parameter("model") : null; // else it is what the chat is about

/**
 * The page `#/compare`; `?with=MODEL&with=ROUTE@VARIANT` after that says who is compared, and `/?model=ROUTE#/compare`
 * begins with the variants of a route.
 */
export function Page() {
  const { phase, entries, defaultModel, error } = useModels();
  const words = useWords();
  useEffect(() => {
    writeParameter("model", null);
    return () => (asked = null); // who comes back has chosen meanwhile
  }, []);
  if (phase === "failed") {
    return html`
      <div class="empty" role="alert">
        <h1>Compare</h1>
        <p>The models are not known: ${error.message}</p>
        <button type="button" onClick=${refreshModels}>Ask again</button>
      </div>
    `;
  }
  if (phase === "loading") return html`<div class="empty" role="status"><h1>Compare</h1><p>Asking for the models…</p></div>`;
  if (entries.length === 0) return html`<div class="empty"><h1>Compare</h1><p>This server has no models.</p></div>`;
  const { known, unknown } = readWords(words, entries);
  const first = firstChoices(entries, { defaultModel, asked, linked: known, kept: keptChoices() });
  return html`<${Comparison} key=${words.join("&")} entries=${entries} first=${first} unknown=${unknown} />`;
}

// Who is compared as a link has it, which another link to this page may change.
function useWords() {
  const [words, setWords] = useState(() => valuesInPage("with"));
  useEffect(() => {
    const moved = () => page.get() === "compare" && valuesInPage("with").length > 0 && setWords(valuesInPage("with"));
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return words;
}
