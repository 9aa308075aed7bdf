// Values of JSON as Python writes them.

const WIDTH = 100;
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}]/gu;
const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\" };

/** Something that knows how Python writes it; `written(indent)` goes on in a line that is indented so far. */
class Written {
  constructor(written) {
    this.written = written;
  }
}

/** A call: `name(positional..., keyword=...)`, on one line where it fits. */
export function call(name, positional, keywords = {}) {
  const parts = [
    ...positional.map((value) => ["", value]),
    ...Object.entries(keywords).map(([keyword, value]) => [`${keyword}=`, value]),
  ];
  return new Written((indent) => name + bracketed("(", ")", parts, indent));
}

/** A whole number of the protocol, which JSON may hold as text since it can have 64 bits. */
export function integer(value) {
  return new Written(() => BigInt(value).toString());
}

/** A duration of the protocol (`1.5s`) in seconds. */
export function seconds(duration) {
  return Number.parseFloat(duration);
}

/** `maxTokens` as `max_tokens`. */
export function named(name) {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** A value as Python writes it, going on in a line that is indented by `indent` spaces. */
export function literal(value, indent = 0) {
  if (value instanceof Written) return value.written(indent);
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return text(value);
  if (Array.isArray(value)) return bracketed("[", "]", value.map((item) => ["", item]), indent);
  return bracketed("{", "}", Object.entries(value).map(([key, item]) => [`${text(key)}: `, item]), indent);
}

function bracketed(open, close, parts, indent) {
  const short = open + parts.map(([before, value]) => before + literal(value)).join(", ") + close;
  if (indent + short.length <= WIDTH && !short.includes("\n")) return short;
  const inner = " ".repeat(indent + 4);
  const lines = parts.map(([before, value]) => `${inner}${before}${literal(value, indent + 4)},\n`);
  return `${open}\n${lines.join("")}${" ".repeat(indent)}${close}`;
}

function text(value) {
  const escaped = value
    .replace(/[\n\r\t"\\]/g, (character) => SHORT[character])
    .replace(UNSEEN, (character) => {
      const point = character.codePointAt(0);
      return point > 0xffff ? `\\U${hex(point, 8)}` : `\\u${hex(point, 4)}`;
    });
  return `"${escaped}"`;
}

function hex(number, digits) {
  return number.toString(16).padStart(digits, "0");
}
