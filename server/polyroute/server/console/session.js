// What the server lets this visitor do, and which server it is.

import { createStore } from "./store.js";

/**
 * `{version, operate, experiments}`: the server's version, whether the visitor may operate, and whether experiments
 * are recorded. Until the server has told, nothing is allowed.
 */
export const session = createStore({ version: "", operate: false, experiments: false });

/** Asks the server once; a server that does not tell leaves everything as it is. */
export async function openSession() {
  try {
    const response = await fetch(new URL("console/session", document.baseURI), { cache: "no-store" });
    if (response.ok) session.set({ ...session.get(), ...(await response.json()) });
  } catch {
    // the banner says that the server is away; it is asked again when it is back
  }
}
