// Long text without markup, in pieces, so that a megabyte on one line is laid out where it is seen and nowhere else.

const PIECE = 2_000;
const REACH = 200; // how far back a piece may end at a space

/** Brings `parent` to show `text`; what it showed of its beginning before stays as it is. */
export function showPlain(parent, text) {
  const shown = parent.childNodes;
  let at = 0;
  let index = 0;
  while (at < text.length) {
    const end = endOf(text, at);
    const part = text.slice(at, end);
    const piece = shown[index];
    if (!piece) parent.append(made(part));
    else if (piece.textContent !== part) piece.textContent = part;
    at = end;
    index += 1;
  }
  while (shown.length > index) parent.lastChild.remove();
}

function made(part) {
  const piece = document.createElement("span");
  piece.className = "piece";
  piece.dir = "auto";
  piece.textContent = part;
  return piece;
}

function endOf(text, from) {
  const most = from + PIECE;
  if (most >= text.length) return text.length;
  const space = text.slice(most - REACH, most).search(/\s\S*$/);
  const end = space >= 0 ? most - REACH + space + 1 : most;
  const unit = text.charCodeAt(end);
  return unit >= 0xdc00 && unit <= 0xdfff ? end + 1 : end; // not between the halves of a character
}
