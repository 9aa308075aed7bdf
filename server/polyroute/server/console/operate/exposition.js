// Reads what `/metrics` says: the text format of Prometheus, version 0.0.4, as far as a reader of counts needs it.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { n: "\n" };

/** The samples of a scrape, in order: `{name, labels, value, key}`; `key` is the same for the same series. */
export function samplesOf(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    if (line === "" || line[0] === "#") continue;
    const found = LINE.exec(line);
    if (!found) throw new Error(`no sample of a metric: ${line.slice(0, 80)}`);
    const [, name, labels = "", value] = found;
    samples.push({ name, labels: labelsOf(labels), value: numberOf(value), key: `${name}{${labels}` });
  }
  return samples;
}

function labelsOf(text) {
  const labels = {};
  for (const [, name, value] of text.matchAll(LABEL)) {
    labels[name] = value.includes("\\") ? value.replace(/\\(.)/g, (_, char) => ESCAPES[char] ?? char) : value;
  }
  return labels;
}

function numberOf(text) {
  return text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text);
}
