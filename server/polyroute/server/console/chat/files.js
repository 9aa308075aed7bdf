// Conversations as files: JSON, which can be read again, and Markdown, which people read.

import { newId, pathOf } from "./conversation.js";
import { plain } from "./storage.js";

const FORMAT = "polyroute.conversations";
const VERSION = 1;

/** Some conversations as JSON text that `readFile` takes. */
export function asJson(conversations) {
  const told = conversations.map((each) => ({
    ...each,
    nodes: each.nodes.map((node) => (node.answer ? { ...node, answer: plain(node.answer) } : node)),
  }));
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations: told }, null, 2);
}

/** The branch of a conversation that is shown, as Markdown text. */
export function asMarkdown(conversation) {
  const lines = [`# ${conversation.title || "Conversation"}`, ""];
  if (conversation.system.trim()) lines.push("## System", "", conversation.system.trim(), "");
  for (const { role, content, answer } of pathOf(conversation)) {
    const by = role === "user" ? "You" : (answer?.route?.model ?? conversation.model) || "Assistant";
    lines.push(`## ${by}`, "", content.trim() || (answer?.error ? `(failed: ${answer.error.message})` : "(empty)"), "");
  }
  return lines.join("\n");
}

/** The conversations of a file's text; throws an error that says what is wrong with it. */
export function readFile(text) {
  let told = null;
  try {
    told = JSON.parse(text);
  } catch (error) {
    throw new Error(`the file is no JSON: ${error.message}`);
  }
  if (told?.format !== FORMAT) throw new Error(`the file is no export of conversations: its \`format\` is not \`${FORMAT}\``);
  if (told.version !== VERSION) throw new Error(`the file has version ${told.version}; this console reads ${VERSION}`);
  if (!Array.isArray(told.conversations)) throw new Error("`conversations`: must be a list");
  return told.conversations.map(conversationOf);
}

function conversationOf(told, index) {
  const wrong = (what) => new Error(`\`conversations[${index}]\`: ${what}`);
  if (!Array.isArray(told?.nodes)) throw wrong("has no list of `nodes`");
  const ids = new Set();
  const nodes = told.nodes.map((node) => {
    if (typeof node?.id !== "string" || typeof node.content !== "string") throw wrong("a node without `id` or `content`");
    if (!["user", "assistant"].includes(node.role)) throw wrong(`a node whose \`role\` is \`${node.role}\``);
    if (node.parent !== null && !ids.has(node.parent)) throw wrong("a node that comes before its `parent`");
    ids.add(node.id);
    return { ...node, answer: answerOf(node) };
  });
  if (told.leaf !== null && !ids.has(told.leaf)) throw wrong("its `leaf` is no node of it");
  return {
    id: newId(), // the same file can be read twice
    title: textOf(told.title),
    renamed: Boolean(told.renamed),
    createdAt: Number(told.createdAt) || Date.now(),
    updatedAt: Number(told.updatedAt) || Date.now(),
    model: textOf(told.model),
    system: textOf(told.system),
    parameters: typeof told.parameters === "object" && told.parameters ? told.parameters : {},
    nodes,
    leaf: told.leaf,
  };
}

// An answer with everything that is shown of one, whatever the file has left out.
function answerOf({ role, content, answer }) {
  if (role !== "assistant") return undefined;
  const bare = { request: {}, state: "done", toolCalls: [], logprobs: [], error: null, route: null, usage: null };
  const times = { firstTokenMs: null, startedAt: 0, endedAt: 0, seed: null, finishReason: "", requestId: "" };
  return plain({ ...bare, startRoute: null, timing: null, ...times, ...answer, text: content });
}

function textOf(value) {
  return typeof value === "string" ? value : "";
}

/** Has the browser save a text as a file. */
export function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A name for a file, from a title. */
export function fileName(title, ending) {
  const name = title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 50);
  return `${name || "conversation"}.${ending}`;
}
