// Light, dark, or as the system has it; the choice is kept in the browser.

import { createStore } from "./store.js";
import { recall, remember } from "./memory.js";

const KEY = "theme";
const ORDER = ["system", "light", "dark"];

/** The theme chosen: `system`, `light` or `dark`. */
export const theme = createStore(ORDER.includes(recall(KEY)) ? recall(KEY) : "system");

/** Goes on to the next theme, shows it and keeps it. */
export function nextTheme() {
  const next = ORDER[(ORDER.indexOf(theme.get()) + 1) % ORDER.length];
  theme.set(next);
  remember(KEY, next === "system" ? null : next);
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
}
