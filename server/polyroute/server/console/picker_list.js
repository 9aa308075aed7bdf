// The list that the picker opens.

import { Badge } from "./badge.js";
import { parts } from "./fuzzy.js";
import { html, useEffect, useRef } from "./preact.js";

/** The DOM ID of a picker's option. */
export function optionId(name, index) {
  return `${name}-${index}`;
}

/** The choices of the picker `name` in their groups; the list is there, empty, while it is closed. */
export function Choices({ name, label, open, groups, more, active, value, query, known, phase, liked, onChoose }) {
  const list = useRef(null);
  useEffect(() => {
    if (open) list.current.querySelector('[data-active="true"]')?.scrollIntoView({ block: "nearest" });
  }, [open, active, groups]);
  let index = 0;
  const empty = open && groups.length === 0;
  return html`
    <div class="picker-pop" hidden=${!open}>
      <div role="listbox" id=${`${name}-list`} aria-label=${label} ref=${list}>
        ${groups.map(
          (group) => html`
            <div role="group" key=${group.name} aria-labelledby=${`${name}-${group.name}`}>
              <div class="picker-group" id=${`${name}-${group.name}`}>${group.name}</div>
              ${group.choices.map(({ entry, at }) => {
                const place = index++;
                return html`
                  <${Option} key=${entry.id} id=${optionId(name, place)} entry=${entry} at=${at} liked=${liked.includes(entry.id)}
                    active=${place === active} chosen=${entry.id === value} onChoose=${onChoose} />
                `;
              })}
            </div>
          `,
        )}
      </div>
      ${empty && html`<p class="picker-note" role="status">${nothing(query, known, phase)}</p>`}
      ${more > 0 && html`<p class="picker-note">${more} more: type to find them</p>`}
    </div>
  `;
}

function Option({ id, entry, at, liked, active, chosen, onChoose }) {
  return html`
    <div role="option" id=${id} class="picker-option" data-active=${String(active)} aria-selected=${String(chosen)}
      onPointerDown=${(event) => event.preventDefault()} onClick=${() => onChoose(entry.id)}>
      <span class="picker-name">
        <bdi>${parts(entry.id, at).map(({ text, hit }) => (hit ? html`<mark>${text}</mark>` : text))}</bdi>
        ${liked && html`<span class="soft" title="favourite"> ★</span>`}
      </span>
      <span class="picker-badges">${entry.badges.map(Badge)}</span>
      <span class="picker-facts numbers">${factsOf(entry).join(" · ")}</span>
    </div>
  `;
}

function factsOf(entry) {
  const facts = [entry.kind];
  if (entry.isDefault) facts.push("default");
  if (entry.contextLength) facts.push(`${inThousands(entry.contextLength)} context`);
  if (entry.version) facts.push(`version ${entry.version}`);
  if (entry.kind === "route") facts.push(entry.variants.map(({ model, share }) => `${model} ${percent(share)}`).join(", "));
  if (entry.fallback.length > 0) facts.push(`then ${entry.fallback.join(", ")}`);
  return facts;
}

function inThousands(tokens) {
  if (tokens < 10_000) return String(tokens);
  return tokens % 1024 === 0 ? `${tokens / 1024}k` : `${Math.round(tokens / 1000)}k`;
}

function percent(share) {
  return `${Math.round((share ?? 0) * 1000) / 10}%`;
}

function nothing(query, known, phase) {
  if (phase === "loading") return "Loading the models…";
  return known === 0 ? "This server has no models." : `No model or route fits “${query}”.`;
}
