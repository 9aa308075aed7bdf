// A request as a program with Polyroute's own Python client.

import { call, integer, seconds, named } from "./literal.js";

const PLAIN = ["maxTokens", "temperature", "topP", "topK", "minP", "repetitionPenalty", "presencePenalty", "frequencyPenalty"];
const ROUTING = ["affinityKey", "user", "session", "variant", "noShadow", "noFallback"];

/** The request as a program with `polyroute.client`; `grpc` is the address, `host:port`. */
export function python(request, { grpc }) {
  const names = new Set(["Client"]);
  const made = (name, positional, keywords) => {
    names.add(name);
    return call(name, positional, keywords);
  };
  const keywords = keywordsOf(request, made);
  const input = request.messages ? request.messages.messages.map(messageOf) : (request.prompt ?? "");
  const asked = call("client.generate", [input], keywords);
  return `import asyncio

from polyroute.client import ${[...names].sort().join(", ")}


async def main() -> None:
    async with ${call("Client", [grpc]).written(4)} as client:
        answer = await ${asked.written(8)}
    print(answer.text)


asyncio.run(main())
`;
}

function keywordsOf(request, made) {
  const keywords = {};
  if (request.model) keywords.model = request.model;
  for (const name of PLAIN) if (request[name] !== undefined) keywords[named(name)] = request[name];
  if (request.seed !== undefined) keywords.seed = integer(request.seed);
  if (request.logprobs !== undefined) keywords.logprobs = request.logprobs;
  if (request.stop?.length) keywords.stop = request.stop;
  if (request.responseFormat) keywords.response_format = formatOf(request.responseFormat, made);
  if (request.tools?.length) keywords.tools = request.tools;
  if (request.toolChoice) keywords.tool_choice = request.toolChoice;
  if (request.extra) keywords.extra = request.extra;
  const routing = chosen(request.routing, ROUTING);
  if (routing) keywords.routing = made("Routing", [], routing);
  if (request.cache) keywords.cache = cacheOf(request.cache, made);
  if (Object.keys(request.labels ?? {}).length) keywords.labels = request.labels;
  return keywords;
}

function messageOf(message) {
  const told = { role: message.role, content: message.content ?? "" };
  if (message.toolCalls?.length) told.tool_calls = message.toolCalls;
  if (message.toolCallId) told.tool_call_id = message.toolCallId;
  return told;
}

function formatOf({ jsonSchema, regex, choice }, made) {
  if (jsonSchema !== undefined) return made("JsonSchema", [jsonSchema]);
  if (regex !== undefined) return made("Regex", [regex]);
  return made("Choice", [choice.choices]);
}

function cacheOf({ mode, maxAge, originalPace }, made) {
  const word = (mode ?? "").replace("CACHE_MODE_", "").toLowerCase();
  if (!maxAge && !originalPace) return word || "unspecified";
  const keywords = {};
  if (maxAge) keywords.max_age_s = seconds(maxAge);
  if (originalPace) keywords.original_pace = true;
  return made("Cache", [word || "unspecified"], keywords);
}

function chosen(from, names) {
  const found = Object.fromEntries(names.filter((name) => from?.[name]).map((name) => [named(name), from[name]]));
  return Object.keys(found).length > 0 ? found : null;
}
