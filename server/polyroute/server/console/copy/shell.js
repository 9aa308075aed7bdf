// A request as commands of a shell.

const GENERATE = "polyroute.v1.InferenceService/Generate";

// What an argument of a program may hold on Linux (MAX_ARG_STRLEN) is 128 KiB; what is longer goes through a pipe.
const LONGEST_ARGUMENT_BYTES = 100_000;

// What a terminal that it is pasted into might act upon, or what nobody sees: controls, formats, lone surrogates.
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** `text` as one word of a POSIX shell, in which nothing is expanded. */
export function word(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A message as JSON that shows every character which it has. */
export function json(message) {
  return JSON.stringify(message, null, 2)
    .split("\n") // those of the indentation: in strings they are escaped
    .map((line) => line.replace(UNSEEN, escaped))
    .join("\n");
}

/** The request as a call of grpcurl; `grpc` is the address, `host:port`. */
export function grpcurl(request, { grpc }) {
  return command(json(request), (body) => `grpcurl -plaintext -d ${body} ${grpc} ${GENERATE}`, "@");
}

/** The request as a call of curl, by the Connect protocol; `url` is where the console is. */
export function curl(request, { url }) {
  const target = word(new URL(GENERATE, url).href);
  return command(
    json(request),
    (body) => `curl -sS ${target} \\\n  -H 'Content-Type: application/json' --data-binary ${body}`,
    "@-",
  );
}

function command(body, write, fromPipe) {
  const size = new TextEncoder().encode(body).length;
  if (size <= LONGEST_ARGUMENT_BYTES) return write(word(body));
  return `printf %s ${word(body)} |\n  ${write(fromPipe)}`;
}

function escaped(character) {
  // by UTF-16 unit, as JSON has it
  return [...Array(character.length).keys()]
    .map((at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, "0")}`)
    .join("");
}
