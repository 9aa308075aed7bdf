// What an operator's page asks of the server, again and again; and what it has the server do.

import { useEffect, useRef, useState } from "../preact.js";

/**
 * Asks by `ask()` now, and `everyMs` after each answer while the page is seen: `{value, error, again}`. After a failure
 * `value` is the last one known; whatever changes in `about` begins anew. `again()` asks at once.
 */
export function useAsked(ask, everyMs, about = []) {
  const [told, setTold] = useState({ value: null, error: null });
  const again = useRef(() => {});
  useEffect(() => {
    let timer = null;
    let turn = 0;
    const once = async () => {
      clearTimeout(timer);
      const mine = ++turn;
      const found = await ask().then(
        (value) => ({ value, error: null }),
        (error) => ({ error }),
      );
      if (mine !== turn) return; // asked again meanwhile, or nobody looks any more
      setTold((known) => ({ ...known, ...found }));
      timer = setTimeout(() => document.hidden || once(), everyMs);
    };
    const seen = () => document.hidden || once();
    document.addEventListener("visibilitychange", seen);
    again.current = once;
    setTold({ value: null, error: null });
    once();
    return () => {
      turn += 1;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, about);
  return { ...told, again: () => again.current() };
}

/** `{busy, error, run}`: `run(act)` has the server do something, one thing at a time; it returns what that answered. */
export function useAct() {
  const [state, setState] = useState({ busy: false, error: null });
  const run = async (act) => {
    setState({ busy: true, error: null });
    try {
      const done = await act();
      setState({ busy: false, error: null });
      return done;
    } catch (error) {
      setState({ busy: false, error });
      return null;
    }
  };
  return { ...state, run };
}
