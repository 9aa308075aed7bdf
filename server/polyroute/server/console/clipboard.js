// Copying to the clipboard, wherever the page comes from.

/** Copies `text`, which `element` shows; returns false where the browser refuses, with the element's text selected. */
export async function copyText(text, element) {
  try {
    await navigator.clipboard.writeText(text); // is not there on a page without TLS that is not local
    return true;
  } catch {
    const range = document.createRange();
    range.selectNodeContents(element);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return false;
  }
}
