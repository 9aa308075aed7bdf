// The conversations that the browser keeps, and the one that is open.

import { createStore } from "../store.js";
import { recall, remember } from "../memory.js";
import { newConversation } from "./conversation.js";
import { all, forget, keep } from "./storage.js";

const AMEND_MS = 500;
let amending = null;

/** `{phase: "loading"|"ready"|"unkept", conversations, problem}`, the newest first; unkept: the browser keeps nothing. */
export const shelf = createStore({ phase: "loading", conversations: [], problem: "" });

/** The conversation that is open. */
export const open = createStore(newConversation());

/**
 * Reads what the browser has kept, and opens the conversation that was open last. Where the address names a model,
 * `asked`, it does so only if that was had with it: a link is no reason to change the model of a conversation.
 */
export async function openShelf(asked) {
  if (asked && asked !== open.get().model) open.set(newConversation({ ...open.get(), model: asked }));
  if (shelf.get().phase !== "loading") return;
  try {
    const conversations = await all();
    const last = conversations.find(({ id }) => id === recall("conversation"));
    if (last && (!asked || asked === last.model)) open.set(last);
    shelf.set({ phase: "ready", conversations, problem: "" });
  } catch (error) {
    shelf.set({ phase: "unkept", conversations: [], problem: error.message });
  }
}

/** Shows a conversation. */
export function show(conversation) {
  open.set(conversation);
  remember("conversation", conversation.id);
}

/** Begins another conversation, with the model, system prompt and parameters of the one that is open. */
export function begin() {
  show(newConversation(open.get()));
}

/** Keeps a conversation in which something was said; what the browser cannot keep stays for as long as the page. */
export async function save(conversation) {
  if (conversation.nodes.length === 0) return;
  const { phase, conversations } = shelf.get();
  const others = conversations.filter(({ id }) => id !== conversation.id);
  const sorted = [conversation, ...others].sort((one, other) => other.updatedAt - one.updatedAt);
  shelf.set({ ...shelf.get(), conversations: sorted });
  remember("conversation", conversation.id);
  if (phase === "unkept") return;
  try {
    await keep(conversation);
    shelf.set({ ...shelf.get(), problem: "" });
  } catch (error) {
    shelf.set({ ...shelf.get(), problem: error.message });
  }
}

/** Changes the model, the system prompt or the parameters of the open conversation, and keeps it a little later. */
export function amend(fields) {
  open.set({ ...open.get(), ...fields });
  clearTimeout(amending);
  amending = setTimeout(() => save(open.get()), AMEND_MS);
}

/** Gives a conversation another title; an empty one leaves it as it is. */
export async function rename(id, title) {
  const found = open.get().id === id ? open.get() : shelf.get().conversations.find((each) => each.id === id);
  if (!found || !title.trim()) return;
  const renamed = { ...found, title: title.trim(), renamed: true };
  if (open.get().id === id) open.set(renamed);
  await save(renamed);
}

/** Deletes a conversation; where it is open, another one begins. It goes from the list once the browser has let it go. */
export async function remove(id) {
  try {
    if (shelf.get().phase === "ready") await forget(id);
  } catch (error) {
    shelf.set({ ...shelf.get(), problem: error.message });
    return;
  }
  shelf.set({ ...shelf.get(), conversations: shelf.get().conversations.filter((each) => each.id !== id) });
  if (open.get().id === id) begin();
}

/** The conversations that have all words of a query in their title or in what was said. */
export function matching(conversations, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return conversations;
  return conversations.filter((conversation) => {
    const text = [conversation.title, ...conversation.nodes.map(({ content }) => content)].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  });
}
