// A conversation as a tree: editing a message or asking again begins a branch beside the old one, and loses nothing.

const TITLE_MOST = 60;

/**
 * @typedef {object} Node one turn
 * @property {string} id
 * @property {string|null} parent ID of the turn before it
 * @property {"user"|"assistant"} role
 * @property {string} content what the user wrote; of an assistant's turn the answer's text
 * @property {import("../answer.js").Answer} [answer] of an assistant's turn
 *
 * @typedef {object} Conversation
 * @property {string} id
 * @property {string} title
 * @property {boolean} renamed whether a person gave the title
 * @property {number} createdAt Unix time in milliseconds
 * @property {number} updatedAt Unix time in milliseconds
 * @property {string} model
 * @property {string} system
 * @property {object} parameters what was typed (parameter_fields.js)
 * @property {Node[]} nodes in the order in which they came
 * @property {string|null} leaf the last turn of the branch that is shown
 */

/** A conversation in which nothing has been said. Returns a `Conversation`. */
export function newConversation({ model = "", system = "", parameters = {} } = {}) {
  const now = Date.now();
  const id = newId();
  return { id, title: "", renamed: false, createdAt: now, updatedAt: now, model, system, parameters, nodes: [], leaf: null };
}

/** An ID that no other has; also where the page came over plain HTTP and `crypto.randomUUID` is missing. */
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The turns of the branch that is shown, oldest first. Returns `Node[]`. */
export function pathOf(conversation, leaf = conversation.leaf) {
  const byId = new Map(conversation.nodes.map((node) => [node.id, node]));
  const path = [];
  for (let node = byId.get(leaf); node; node = byId.get(node.parent)) path.unshift(node);
  return path;
}

/** The turns that stand beside this one, itself among them, oldest first. */
export function siblingsOf(conversation, node) {
  return conversation.nodes.filter((each) => each.parent === node.parent && each.role === node.role);
}

/** The conversation with another turn at the end of `parent`, and that turn's ID: `[conversation, id]`. */
export function withTurn(conversation, parent, turn) {
  const node = { ...turn, id: newId(), parent };
  const nodes = [...conversation.nodes, node];
  const title = conversation.title || (turn.role === "user" ? titleOf(turn.content) : "");
  return [{ ...conversation, nodes, leaf: node.id, title, updatedAt: Date.now() }, node.id];
}

/** The conversation with the answer of an assistant's turn as it stands now. */
export function withAnswer(conversation, id, answer) {
  const nodes = conversation.nodes.map((node) => (node.id === id ? { ...node, content: answer.text, answer } : node));
  return { ...conversation, nodes, updatedAt: answer.state === "streaming" ? conversation.updatedAt : Date.now() };
}

/** The conversation showing the branch of this turn, to the newest turn of it. */
export function showing(conversation, id) {
  let leaf = id;
  for (;;) {
    const next = conversation.nodes.findLast((node) => node.parent === leaf);
    if (!next) return { ...conversation, leaf };
    leaf = next.id;
  }
}

/** The title of a conversation that begins with this message. */
export function titleOf(content) {
  const line = content.trim().split("\n")[0].replace(/\s+/g, " ");
  return line.length > TITLE_MOST ? `${line.slice(0, TITLE_MOST - 1).trimEnd()}…` : line;
}

/**
 * The `GenerateRequest` that answers the last of these turns: the system prompt and what was said, or, for a model
 * that takes no conversations, all of it as one text. `fields` are those of readParameters.
 */
export function requestOf({ model, system }, path, fields, { chat }) {
  const messages = system.trim() ? [{ role: "system", content: system }] : [];
  for (const { role, content } of path) if (content) messages.push({ role, content });
  const input = chat ? { messages: { messages } } : { prompt: messages.map(({ content }) => content).join("\n\n") };
  return { model, ...input, ...fields };
}
