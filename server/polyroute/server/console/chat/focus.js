// Where the keyboard's focus goes when what had it is gone.

import { useEffect, useRef } from "../preact.js";

/** Focuses the element of `ref` when `state` has changed and the focus is nowhere any more. */
export function useFocusKept(state, ref) {
  const before = useRef(state);
  useEffect(() => {
    if (before.current !== state && document.activeElement === document.body && !opensKeyboard(ref.current)) {
      ref.current?.focus({ preventScroll: true });
    }
    before.current = state;
  }, [state]);
}

// On a touch screen, a field that gets the focus covers half of what is to be read.
function opensKeyboard(element) {
  return element?.tagName === "TEXTAREA" && !matchMedia("(pointer: fine)").matches;
}
