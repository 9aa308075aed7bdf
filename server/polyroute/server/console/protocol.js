// The frames of the Connect protocol's streams, and the error details of google.rpc in them.
// https://connectrpc.com/docs/protocol (streaming RPCs, error end-stream)

const END_OF_STREAM = 2;
const COMPRESSED = 1;
const HEADER_BYTES = 5;

/** One message as a frame: a byte of flags, its length in 4 bytes (big endian), its JSON. */
export function frame(message) {
  const payload = new TextEncoder().encode(JSON.stringify(message));
  const framed = new Uint8Array(HEADER_BYTES + payload.length);
  new DataView(framed.buffer).setUint32(1, payload.length);
  framed.set(payload, HEADER_BYTES);
  return framed;
}

/**
 * Takes the frames of a stream apart as its bytes come. `push(bytes)` returns the messages that are complete, each as
 * `{end, message}`, and throws for a frame that cannot be read.
 */
export function createFrames() {
  let rest = new Uint8Array(0);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  return {
    push(bytes) {
      const all = rest.length === 0 ? bytes : joined(rest, bytes);
      const messages = [];
      let at = 0;
      while (all.length - at >= HEADER_BYTES) {
        const flags = all[at];
        const size = new DataView(all.buffer, all.byteOffset + at + 1, 4).getUint32(0);
        if (all.length - at - HEADER_BYTES < size) break;
        if (flags & COMPRESSED) throw new Error("the server sent a compressed frame, which was not asked for");
        const payload = all.subarray(at + HEADER_BYTES, at + HEADER_BYTES + size);
        messages.push({ end: Boolean(flags & END_OF_STREAM), message: JSON.parse(decoder.decode(payload)) });
        at += HEADER_BYTES + size;
      }
      rest = all.slice(at);
      return messages;
    },
  };
}

function joined(first, second) {
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

/**
 * What an error's details tell: `{reason, field, retryAfterS}`, each absent where no detail has it. A detail is
 * `{type, value}`, its value a protobuf message of google/rpc/error_details.proto in base64.
 */
export function readDetails(details) {
  const told = {};
  for (const { type, value } of details ?? []) {
    const fields = protobufFields(bytesOf(value ?? ""));
    if (type === "google.rpc.ErrorInfo") told.reason = textOf(fields.get(1));
    if (type === "google.rpc.BadRequest" && fields.has(1)) {
      told.field = textOf(protobufFields(fields.get(1)).get(1));
    }
    if (type === "google.rpc.RetryInfo" && fields.has(1)) {
      const duration = protobufFields(fields.get(1));
      told.retryAfterS = (duration.get(1) ?? 0) + (duration.get(2) ?? 0) / 1e9;
    }
  }
  return told;
}

// Number of each field: its first value; numbers for varints, bytes for what has a length.
function protobufFields(bytes) {
  const fields = new Map();
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 1; at < bytes.length; shift *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * shift;
      if (byte < 128) break;
    }
    return value;
  };
  while (at < bytes.length) {
    const tag = varint();
    let value = null;
    if ((tag & 7) === 0) value = varint();
    else if ((tag & 7) === 2) {
      const size = varint();
      value = bytes.subarray(at, at + size);
      at += size;
    } else break; // google.rpc has no other kinds
    if (!fields.has(tag >> 3)) fields.set(tag >> 3, value);
  }
  return fields;
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
}

function textOf(bytes) {
  return bytes ? new TextDecoder().decode(bytes) : "";
}
