// One value that several parts of the page look at, and are told when it changes.

import { useEffect, useState } from "./vendor/htm/standalone.module.js";

/**
 * A value with `get()`, `set(value)` and `subscribe(listener)`; `subscribe` returns what ends it. Setting the value
 * that it has already tells nobody.
 */
export function createStore(initial) {
  let value = initial;
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const listener of [...listeners]) listener(value);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The store's value, in a component; renders it anew when that changes. */
export function useStore(store) {
  const [value, setValue] = useState(store.get());
  useEffect(() => {
    setValue(store.get()); // it may have changed between rendering and here
    return store.subscribe(setValue);
  }, [store]);
  return value;
}
