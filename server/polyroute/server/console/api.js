// Calls of the server's API by the Connect protocol with JSON: everything that gRPC callers have.
// https://connectrpc.com/docs/protocol

import { createFrames, frame, readDetails } from "./protocol.js";

const PACKAGE = "polyroute.v1";
const BROKEN_OFF = "the connection ended before the answer did";
const UNREACHABLE = "the server cannot be reached";

/**
 * Why a call failed. `code` is the Connect code (`not_found`), `unavailable` where the server cannot be reached;
 * `status` the HTTP status, 0 where there was none; `reason` as in google.rpc.ErrorInfo; `field` the field of the
 * request that is wrong; `retryAfterS` the seconds to wait before another try. What is not known is empty or null.
 */
export class ApiError extends Error {
  constructor({ code, message, status = 0, reason = "", field = "", requestId = "", retryAfterS = null }) {
    super(message);
    this.name = "ApiError";
    Object.assign(this, { code, status, reason, field, requestId, retryAfterS });
  }

  /** Whether the server itself was out of reach, rather than that it refused. */
  get offline() {
    return this.code === "unavailable" && this.status === 0;
  }
}

/**
 * Calls a unary method, such as `call("ModelService", "ListModels", {})`, and returns its answer.
 *
 * Throws `ApiError`; what `signal` aborts throws its `AbortError`.
 */
export async function call(service, method, message, { signal } = {}) {
  const response = await post(service, method, JSON.stringify(message), "application/json", signal);
  if (!response.ok) throw await refusal(response);
  return response.json().catch((error) => {
    throw lost(error, response);
  });
}

/**
 * Generates one answer as a stream: `onHeaders(headers)` once, then `onEvent(event)` for each `GenerateEvent`.
 *
 * Returns when the answer is complete. Throws `ApiError` for an answer that failed or broke off, and the
 * `AbortError` of `signal`, which cancels the call down to the model.
 */
export async function stream(message, { signal, onEvent, onHeaders } = {}) {
  const response = await post("InferenceService", "StreamGenerate", frame(message), "application/connect+json", signal);
  if (!response.ok || !response.body) throw await refusal(response);
  onHeaders?.(response.headers);
  const reader = response.body.getReader();
  const frames = createFrames();
  let last = null;
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        if (last) return { done: true }; // whatever became of the connection, the answer is whole
        throw lost(error, response);
      });
      if (done) break; // it is read to its end: a body that is left before counts as aborted
      for (const { end, message: told } of frames.push(value)) {
        if (end) last = told;
        else onEvent?.(told);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
  if (!last) throw lost(null, response);
  if (last.error) throw failure(last.error, response);
}

function post(service, method, body, type, signal) {
  return fetch(new URL(`${PACKAGE}.${service}/${method}`, document.baseURI), {
    method: "POST",
    headers: { "Content-Type": type, "Connect-Protocol-Version": "1" },
    body,
    signal,
    cache: "no-store",
  }).catch((error) => {
    throw error.name === "AbortError" ? error : new ApiError({ code: "unavailable", message: UNREACHABLE });
  });
}

function lost(error, response) {
  if (error?.name === "AbortError") return error;
  return new ApiError({ code: "unavailable", message: BROKEN_OFF, requestId: requestIdOf(response) });
}

async function refusal(response) {
  const told = await response.json().catch(() => null);
  // what stands before the server (a proxy) and REST's own refusals have other shapes
  const error = told?.code ? told : { code: codeOf(response.status), message: told?.error?.message };
  return failure(error, response);
}

function failure({ code, message, details }, response) {
  const retry = response.headers.get("Retry-After");
  return new ApiError({
    code: code ?? "unknown",
    message: message || `the server answered ${response.status}`,
    status: response.status,
    requestId: requestIdOf(response),
    retryAfterS: retry ? Number(retry) || null : null,
    ...readDetails(details),
  });
}

function requestIdOf(response) {
  return response.headers.get("X-Request-ID") ?? "";
}

// https://connectrpc.com/docs/protocol#http-to-error-code
function codeOf(status) {
  const codes = { 400: "internal", 401: "unauthenticated", 403: "permission_denied", 404: "unimplemented" };
  return codes[status] ?? ([429, 502, 503, 504].includes(status) ? "unavailable" : "unknown");
}
