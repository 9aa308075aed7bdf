// Panes that scroll together.

/**
 * Makes scrolling panes keep the same part of their height in sight. `add(element)` returns what lets one go; while
 * `enabled()` is false each scrolls by itself.
 */
export function together(enabled) {
  const panes = new Set();
  let leader = null;
  let waiting = 0;

  function follow() {
    waiting = 0;
    if (!leader) return;
    const room = leader.scrollHeight - leader.clientHeight;
    const part = room > 0 ? leader.scrollTop / room : 0;
    for (const pane of panes) {
      if (pane !== leader) pane.scrollTop = part * (pane.scrollHeight - pane.clientHeight);
    }
  }

  function onScroll({ currentTarget }) {
    if (currentTarget !== leader || !enabled()) return;
    waiting ||= requestAnimationFrame(follow);
  }

  // Who scrolls leads: panes that only follow have scroll events as well.
  function lead({ currentTarget }) {
    leader = currentTarget;
  }

  return {
    add(pane) {
      panes.add(pane);
      for (const sign of LEADS) pane.addEventListener(sign, lead, { passive: true });
      pane.addEventListener("scroll", onScroll, { passive: true });
      return () => {
        panes.delete(pane);
        if (leader === pane) leader = null;
        for (const sign of LEADS) pane.removeEventListener(sign, lead);
        pane.removeEventListener("scroll", onScroll);
      };
    },
  };
}

const LEADS = ["wheel", "touchstart", "pointerdown", "keydown", "focusin"];
