// Asks within a conversation: sends, stops, asks again, edits.

import { ask, newAnswer } from "../answer.js";
import { models } from "../models.js";
import { readParameters } from "../parameter_fields.js";
import { createStore } from "../store.js";
import { pathOf, requestOf, withAnswer, withTurn } from "./conversation.js";
import { open, save, shelf } from "./shelf.js";

/** The calls under way, an `AbortController` by the ID of their conversation. */
export const running = createStore(new Map());

/** Sends a message at the end of the branch that is shown. */
export function send(content) {
  return answerTo(withTurn(open.get(), open.get().leaf, { role: "user", content })[0]);
}

/** Asks once more for the answer `node`, beside the one that is there. */
export function retry(node) {
  return answerTo({ ...open.get(), leaf: node.parent });
}

/** Sends another wording of the message `node`, beside the one that is there. */
export function edit(node, content) {
  return answerTo(withTurn(open.get(), node.parent, { role: "user", content })[0]);
}

/** Stops the answer that is coming in a conversation, the open one where none is named; its call is cancelled, wherever it runs. */
export function stop(id = open.get().id) {
  running.get().get(id)?.abort();
}

async function answerTo(asked) {
  if (running.get().has(asked.id)) return;
  const model = asked.model || models.get().defaultModel;
  const entry = models.get().entries.find(({ id }) => id === model);
  const { fields } = readParameters(asked.parameters);
  const request = requestOf({ ...asked, model }, pathOf(asked), fields, { chat: entry?.chat ?? true });
  const turn = { role: "assistant", content: "", answer: newAnswer(request) };
  const [begun, id] = withTurn({ ...asked, model }, asked.leaf, turn);
  const controller = new AbortController();
  mark(begun.id, controller);
  open.set(begun);
  save(begun);
  const answer = await ask(request, {
    signal: controller.signal,
    onChange: (now) => change(begun.id, (conversation) => withAnswer(conversation, id, now)),
  });
  mark(begun.id, null);
  const ended = open.get().id === begun.id ? open.get() : shelf.get().conversations.find((each) => each.id === begun.id);
  if (ended) await save(withAnswer(ended, id, answer));
}

function mark(id, controller) {
  const now = new Map(running.get());
  if (controller) now.set(id, controller);
  else now.delete(id);
  running.set(now);
}

// The conversation may have been left meanwhile: its answer goes on, and is found when one comes back.
function change(id, step) {
  if (open.get().id === id) {
    open.set(step(open.get()));
    return;
  }
  const now = shelf.get();
  const conversations = now.conversations.map((each) => (each.id === id ? step(each) : each));
  shelf.set({ ...now, conversations });
}
