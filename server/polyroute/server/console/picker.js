// Chooses a model or a route: search as one types, by keyboard or pointer.
// https://www.w3.org/WAI/ARIA/apg/patterns/combobox/ (editable, with a list)

import { Badge } from "./badge.js";
import { choicesOf, favourites, noteChoice, recents, toggleFavourite } from "./choices.js";
import { useModels } from "./models.js";
import { Choices, optionId } from "./picker_list.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./preact.js";
import { useStore } from "./store.js";

const PAGE = 8; // how far PageUp and PageDown go
let instances = 0;

/** A choice among the models and routes: `value` is the ID chosen, `onChange(id)` is told of another. */
export function ModelPicker({ value, onChange, label = "Model" }) {
  const { entries, phase } = useModels();
  const liked = useStore(favourites);
  const [name] = useState(() => `picker-${++instances}`);
  const [query, setQuery] = useState(null); // null while it is closed
  const [active, setActive] = useState(0);
  const root = useRef(null);
  const open = query !== null;
  const { groups, more } = useMemo(
    () => (open ? choicesOf(entries, query, liked, recents.get()) : { groups: [], more: 0 }),
    [entries, query, liked],
  );
  const ids = groups.flatMap(({ choices }) => choices.map(({ entry }) => entry.id));
  const current = entries.find(({ id }) => id === value);

  useEffect(() => {
    if (!open) return undefined;
    const close = (event) => root.current.contains(event.target) || setQuery(null);
    document.addEventListener("pointerdown", close);
    return () => document.removeEventListener("pointerdown", close);
  }, [open]);

  useLayoutEffect(() => {
    if (open) setActive(query ? 0 : Math.max(0, ids.indexOf(value)));
  }, [query]);

  const choose = (id) => {
    setQuery(null);
    if (!id) return;
    noteChoice(id);
    onChange(id);
  };
  const onKeyDown = (event) => {
    const last = ids.length - 1;
    const moves = {
      ArrowDown: active >= last ? 0 : active + 1,
      ArrowUp: active <= 0 ? last : active - 1,
      PageDown: Math.min(last, active + PAGE),
      PageUp: Math.max(0, active - PAGE),
    };
    if (event.key in moves) {
      if (open) setActive(moves[event.key]);
      else setQuery("");
    } else if (event.key === "Enter" && open) choose(ids[active]);
    else if (event.key === "Escape" && open) setQuery(null);
    else if (event.key === "Tab" && open) return void setQuery(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  return html`
    <div class="picker" ref=${root}>
      <div class="picker-field">
        <input type="text" role="combobox" aria-label=${label} autocomplete="off" spellcheck=${false}
          aria-expanded=${String(open)} aria-controls=${`${name}-list`} aria-autocomplete="list"
          aria-activedescendant=${open && ids.length > 0 ? optionId(name, active) : null}
          value=${open ? query : (value ?? "")}
          placeholder=${open ? (value || "Search models") : phase === "loading" ? "Loading the models…" : "Choose a model"}
          onFocus=${(event) => event.currentTarget.select()} onClick=${() => open || setQuery("")}
          onInput=${(event) => setQuery(event.currentTarget.value)} onKeyDown=${onKeyDown}
          onBlur=${(event) => root.current.contains(event.relatedTarget) || setQuery(null)} />
        <span class="picker-badges">${!open && current && current.badges.map(Badge)}</span>
      </div>
      <${Favourite} id=${current?.id} liked=${liked} />
      <${Choices} name=${name} label=${label} open=${open} groups=${groups} more=${more} active=${active} value=${value}
        query=${query ?? ""} known=${entries.length} phase=${phase} liked=${liked} onChoose=${choose} />
    </div>
  `;
}

function Favourite({ id, liked }) {
  const marked = liked.includes(id);
  return html`
    <button type="button" class="quiet icon favourite" disabled=${!id} aria-pressed=${String(marked)}
      aria-label="Favourite" title=${marked ? "No longer a favourite" : "Mark as a favourite"}
      onClick=${() => toggleFavourite(id)}><span aria-hidden="true">${marked ? "★" : "☆"}</span></button>
  `;
}
