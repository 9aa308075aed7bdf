// The console: asks the server that it came from, and shows the answer as it comes and how it was routed.
"use strict";

const $ = (id) => document.getElementById(id);
const models = new Map();
let running = null;

const BROKEN_OFF = "The answer broke off: the connection ended before the answer did.";

const ROUTE_HEADERS = [
  ["Model", "x-polyroute-model"],
  ["Version", "x-polyroute-version"],
  ["Deployment", "x-polyroute-deployment"],
  ["Replica", "x-polyroute-replica"],
  ["Variant", "x-polyroute-variant"],
  ["Cache", "x-polyroute-cache"],
  ["Attempts", "x-polyroute-attempts"],
  ["Reasons", "x-polyroute-reasons"],
  ["Trace", "x-polyroute-trace-id"],
  ["Request", "x-request-id"],
];

class ServerError extends Error {
  constructor(status, body, fallback) {
    const error = (body && body.error) || {};
    const told = [error.message || fallback];
    if (error.code) told.push(`(${error.code}${error.request_id ? `, request ${error.request_id}` : ""})`);
    super(told.join(" "));
    this.status = status;
  }
}

async function refused(response) {
  const body = await response.json().catch(() => null);
  return new ServerError(response.status, body, `HTTP ${response.status}`);
}

async function loadModels() {
  try {
    const response = await fetch("/v1/models");
    if (!response.ok) throw await refused(response);
    const listed = await response.json();
    const chosen = $("model").value || listed.default_model;
    models.clear();
    const options = listed.data.map((model) => {
      models.set(model.id, model);
      const option = document.createElement("option");
      option.value = model.id;
      option.textContent = `${model.id} · ${model.type} · ${model.state}`;
      return option;
    });
    $("model").replaceChildren(...options);
    if (models.has(chosen)) $("model").value = chosen;
    const warm = listed.data.filter((model) => model.state === "warm").length;
    $("server").textContent = `${warm} of ${listed.data.length} ready`;
  } catch (error) {
    $("server").textContent = `The server does not answer: ${error.message}`;
  }
  showModelState();
}

function showModelState() {
  const model = models.get($("model").value);
  if (!model) {
    $("model-state").textContent = "";
    return;
  }
  const parts = [];
  if (model.state !== "warm") parts.push(model.state);
  if (model.detail) parts.push(model.detail);
  if (model.version) parts.push(`version ${model.version}`);
  if (model.context_length) parts.push(`context ${model.context_length} tokens`);
  $("model-state").textContent = parts.join(" · ");
}

function requestOf(model) {
  const prompt = $("prompt").value;
  const system = $("system").value.trim();
  const body = { model: model.id, stream: true, stream_options: { include_usage: true } };
  if ($("temperature").value !== "") body.temperature = Number($("temperature").value);
  if ($("max-tokens").value !== "") body.max_tokens = Number($("max-tokens").value);
  if (!model.chat) {
    body.prompt = system ? `${system}\n\n${prompt}` : prompt;
    return ["/v1/completions", body];
  }
  body.messages = [{ role: "user", content: prompt }];
  if (system) body.messages.unshift({ role: "system", content: system });
  return ["/v1/chat/completions", body];
}

// The data of each server-sent event; throws when the stream ends without [DONE].
async function* eventsOf(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        throw error.name === "AbortError" ? error : new Error(BROKEN_OFF);
      });
      if (done) throw new Error(BROKEN_OFF);
      rest += decoder.decode(value, { stream: true });
      const parts = rest.split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        if (!part.startsWith("data: ")) continue;
        const data = part.slice("data: ".length);
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function showRoute(headers) {
  const rows = [];
  for (const [name, header] of ROUTE_HEADERS) {
    const value = headers.get(header);
    if (!value) continue;
    const term = document.createElement("dt");
    const told = document.createElement("dd");
    term.textContent = name;
    told.textContent = value;
    rows.push(term, told);
  }
  $("route").replaceChildren(...rows);
  $("why").hidden = rows.length === 0;
}

function showError(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

function busy(yes) {
  $("send").disabled = yes;
  $("stop").disabled = !yes;
  $("answer").setAttribute("aria-busy", String(yes));
}

async function send() {
  const model = models.get($("model").value);
  if (running || !model || !$("form").reportValidity()) return;
  running = new AbortController();
  busy(true);
  showError("");
  $("answer").textContent = "";
  $("timing").textContent = "";
  $("route").replaceChildren();
  $("why").hidden = true;
  const begun = performance.now();
  const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(2)} s`;
  let first = "";
  let ended = "";
  let usage = null;
  try {
    const [path, body] = requestOf(model);
    const response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: running.signal,
    });
    showRoute(response.headers);
    if (!response.ok) throw await refused(response);
    for await (const chunk of eventsOf(response)) {
      if (chunk.error) throw new ServerError(0, chunk, "The answer broke off.");
      usage = chunk.usage || usage;
      const choice = chunk.choices[0];
      if (!choice) continue;
      const text = choice.delta ? choice.delta.content : choice.text;
      if (text) {
        first = first || seconds(begun);
        $("answer").append(text);
      }
      ended = choice.finish_reason || ended;
    }
  } catch (error) {
    if (error.name === "AbortError") ended = "stopped";
    else showError(error.message);
  } finally {
    running = null;
    busy(false);
    const told = [`total ${seconds(begun)}`];
    if (first) told.unshift(`first token ${first}`);
    if (usage) told.push(`${usage.prompt_tokens} + ${usage.completion_tokens} tokens`);
    if (ended) told.push(`end: ${ended}`);
    $("timing").textContent = told.join(" · ");
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", () => running && running.abort());
$("refresh").addEventListener("click", loadModels);
$("model").addEventListener("change", showModelState);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    send();
  } else if (event.key === "Escape" && running) {
    running.abort();
  }
});
loadModels();
