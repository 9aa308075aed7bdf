// A request as a program with OpenAI's Python SDK.

import { call, integer, literal, named, seconds } from "./literal.js";

const PLAIN = ["maxTokens", "temperature", "topP", "presencePenalty", "frequencyPenalty"];
const BODY = ["topK", "minP", "repetitionPenalty"]; // not of OpenAI's, but as vLLM has them
const PASSED = ["logit_bias", "parallel_tool_calls", "reasoning_effort", "verbosity", "chat_template_kwargs"];
const HEADERS = {
  session: "X-Polyroute-Session",
  variant: "X-Polyroute-Variant",
  noShadow: "X-Polyroute-No-Shadow",
  noFallback: "X-Polyroute-No-Fallback",
};
const CHOICES = ["auto", "none", "required"];

/** The request as a program with `openai`; `url` is where the console is. What its API cannot say stands in comments. */
export function openai(request, { url, model }) {
  const chat = Boolean(request.messages);
  const { headers, unsaid } = headersOf(request);
  const body = bodyOf(request, chat, unsaid);
  const keywords = { model: request.model || model, ...inputOf(request), ...samplingOf(request, chat) };
  if (Object.keys(body).length > 0) keywords.extra_body = body;
  if (Object.keys(headers).length > 0) keywords.extra_headers = headers;
  const asked = call(chat ? "client.chat.completions.create" : "client.completions.create", [], keywords);
  const client = call("OpenAI", [], { base_url: new URL("v1", url).href, api_key: "none" });
  const comments = unsaid.map((what) => `# not said, for this API has no word for it: ${what}\n`).join("");
  return `from openai import OpenAI

${comments}client = ${client.written(0)}
answer = ${asked.written(0)}
print(answer.choices[0].${chat ? "message.content" : "text"})
`;
}

function inputOf({ messages, prompt }) {
  return messages ? { messages: messages.messages.map(messageOf) } : { prompt: prompt ?? "" };
}

function messageOf({ role, content, toolCalls, toolCallId }) {
  const told = { role, content: content ?? "" };
  if (toolCallId) told.tool_call_id = toolCallId;
  if (toolCalls?.length) {
    told.tool_calls = toolCalls.map(({ id, name, arguments: given }) => ({
      id: id ?? "",
      type: "function",
      function: { name: name ?? "", arguments: given ?? "" },
    }));
  }
  return told;
}

function samplingOf(request, chat) {
  const keywords = {};
  for (const name of PLAIN) if (request[name] !== undefined) keywords[named(name)] = request[name];
  if (request.seed !== undefined) keywords.seed = integer(request.seed);
  if (request.stop?.length) keywords.stop = request.stop;
  if (request.logprobs !== undefined) {
    Object.assign(keywords, chat ? { logprobs: true, top_logprobs: request.logprobs } : { logprobs: request.logprobs });
  }
  const schema = request.responseFormat?.jsonSchema;
  if (chat && schema !== undefined) {
    const named = { name: "answer", schema: JSON.parse(schema) };
    keywords.response_format = { type: "json_schema", json_schema: named };
  }
  if (request.routing?.user) keywords.user = request.routing.user;
  if (Object.keys(request.labels ?? {}).length) keywords.metadata = request.labels;
  if (request.tools?.length) keywords.tools = request.tools.map((tool) => ({ type: "function", function: tool }));
  if (request.toolChoice) keywords.tool_choice = choiceOf(request.toolChoice);
  return keywords;
}

function choiceOf(choice) {
  return CHOICES.includes(choice) ? choice : { type: "function", function: { name: choice } };
}

function bodyOf(request, chat, unsaid) {
  const body = {};
  for (const name of BODY) if (request[name] !== undefined) body[named(name)] = request[name];
  if (request.routing?.affinityKey) body.prompt_cache_key = request.routing.affinityKey;
  const { jsonSchema, regex, choice } = request.responseFormat ?? {};
  if (regex !== undefined) body.structured_outputs = { regex };
  if (choice !== undefined) body.structured_outputs = { choice: choice.choices };
  if (!chat && jsonSchema !== undefined) body.structured_outputs = { json: JSON.parse(jsonSchema) };
  for (const [name, value] of Object.entries(request.extra ?? {})) {
    if (chat ? PASSED.includes(name) : name === "logit_bias") body[name] = value;
    else unsaid.push(`extra, ${literal(name)}`);
  }
  return body;
}

function headersOf({ routing, cache }) {
  const headers = {};
  const unsaid = [];
  for (const [field, header] of Object.entries(HEADERS)) {
    const value = routing?.[field];
    if (!value) continue;
    if (/^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(String(value))) headers[header] = String(value);
    else unsaid.push(`routing.${named(field)}, ${literal(value)}`);
  }
  const mode = (cache?.mode ?? "").replace("CACHE_MODE_", "").toLowerCase();
  if (mode && mode !== "unspecified") headers["X-Polyroute-Cache"] = mode;
  if (cache?.maxAge) headers["X-Polyroute-Cache-Max-Age"] = String(seconds(cache.maxAge));
  if (cache?.originalPace) headers["X-Polyroute-Cache-Original-Pace"] = "true";
  return { headers, unsaid };
}
