// Conversations, kept in the browser (IndexedDB) and nowhere else.

const DATABASE = "polyroute";
const STORE = "conversations";
const VERSION = 1;
let opened = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open(DATABASE, VERSION);
    asked.onupgradeneeded = () => asked.result.createObjectStore(STORE, { keyPath: "id" });
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
    asked.onblocked = () => reject(new Error("another tab holds an older version of the conversations"));
  });
  opened.catch(() => (opened = null));
  return opened;
}

async function within(mode, work) {
  const store = (await database()).transaction(STORE, mode).objectStore(STORE);
  return new Promise((resolve, reject) => {
    const asked = work(store);
    store.transaction.oncomplete = () => resolve(asked.result);
    store.transaction.onabort = () => reject(store.transaction.error);
  });
}

/** Keeps a `Conversation` (conversation.js); throws where the browser keeps nothing, or has no room left. */
export function keep(conversation) {
  const nodes = conversation.nodes.map((node) => (node.answer ? { ...node, answer: plain(node.answer) } : node));
  return within("readwrite", (store) => store.put({ ...conversation, nodes }));
}

/** The conversation of that ID, or undefined. */
export function load(id) {
  return within("readonly", (store) => store.get(id));
}

/** Every conversation, the newest first. */
export async function all() {
  const found = await within("readonly", (store) => store.getAll());
  return found.sort((one, other) => other.updatedAt - one.updatedAt);
}

/** Forgets a conversation. */
export function forget(id) {
  return within("readwrite", (store) => store.delete(id));
}

/** An answer without what only lives as long as the page; one that was still coming has been stopped by then. */
export function plain(answer) {
  const { error } = answer;
  const state = answer.state === "streaming" ? "stopped" : answer.state;
  return { ...answer, state, logprobs: [], error: error && { ...error, message: error.message } };
}
