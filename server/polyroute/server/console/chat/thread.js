// The turns of a conversation, kept at the end for as long as the reader is there.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../preact.js";
import { pathOf, showing, siblingsOf } from "./conversation.js";
import { Turn } from "./turn.js";
import { open, save } from "./shelf.js";

const NEAR = 48; // pixels from the end that still count as the end

/** The branch of a conversation that is shown. */
export function Thread({ conversation, entry, busy }) {
  const frame = useRef(null);
  const inner = useRef(null);
  const { atEnd, toEnd } = useEnd(frame, inner, conversation.id);
  const path = pathOf(conversation);
  const last = path.at(-1);
  useEffect(toEnd, [conversation.leaf]); // who sends wants to see it
  return html`
    <div class="thread" ref=${frame} tabindex="0" role="region" aria-label="Messages">
      <div class="thread-inner" ref=${inner}>
        ${path.length === 0 && html`<${Empty} entry=${entry} />`}
        ${path.map((node) => {
          const siblings = siblingsOf(conversation, node);
          return html`
            <${Turn} key=${node.id} node=${node} place=${siblings.indexOf(node)} count=${siblings.length} busy=${busy} onPlace=${goTo} />
          `;
        })}
      </div>
      ${!atEnd && html`<button type="button" class="to-end" onClick=${toEnd}>To the end ↓</button>`}
      <p class="unseen" role="status">${statusOf(last)}</p>
    </div>
  `;
}

function goTo(node, place) {
  const shown = showing(open.get(), siblingsOf(open.get(), node)[place].id);
  open.set(shown);
  save(shown);
}

// What a screen reader hears: that an answer comes and that it is complete, not each of its words.
function statusOf(node) {
  if (node?.role !== "assistant") return "";
  const told = { streaming: "Answering", done: "The answer is complete", stopped: "Stopped", failed: "The answer failed" };
  return told[node.answer.state];
}

function Empty({ entry }) {
  return html`
    <div class="empty">
      <h2>${entry ? html`Ask <bdi>${entry.id}</bdi>` : "Ask a model"}</h2>
      <p>
        ${entry?.state === "cold" ? "It is not loaded: the first answer waits for that. " : ""}
        ${entry?.state === "failed" ? `It cannot be reached: ${entry.detail}` : ""}
        Conversations are kept in this browser and nowhere else.
      </p>
    </div>
  `;
}

// Follows what grows while its end is in view; says whether it is, and goes there.
function useEnd(frame, inner, about) {
  const following = useRef(true);
  const [atEnd, setAtEnd] = useState(true);
  const toEnd = () => {
    following.current = true;
    setAtEnd(true);
    frame.current.scrollTop = frame.current.scrollHeight;
  };
  useLayoutEffect(toEnd, [about]);
  useEffect(() => {
    const { current: element } = frame;
    let height = element.scrollHeight;
    const onScroll = () => {
      const { scrollTop, scrollHeight, clientHeight } = element;
      const near = scrollHeight - scrollTop - clientHeight < NEAR;
      if (near || scrollHeight === height) {
        following.current = near; // a reader's scroll; where the height changed, it may be the page's own
        setAtEnd(near);
      }
      height = scrollHeight;
    };
    const watching = new ResizeObserver(() => {
      if (following.current) element.scrollTop = element.scrollHeight;
      else onScroll();
    });
    element.addEventListener("scroll", onScroll, { passive: true });
    watching.observe(inner.current);
    watching.observe(element);
    return () => {
      element.removeEventListener("scroll", onScroll);
      watching.disconnect();
    };
  }, []);
  return { atEnd, toEnd };
}
