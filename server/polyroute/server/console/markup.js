// One block of markdown as nodes of the page. What models write is hostile until it has passed here.

import DOMPurify from "./vendor/dompurify/purify.es.mjs";
import { Marked } from "./vendor/marked/marked.esm.js";
import { codeFigure } from "./code.js";

const SAFE_ADDRESS = /^(?:https?:\/\/|mailto:)/i;
const HEADING_BELOW = 2; // headings of an answer stand below those of the page
const CLEAN = {
  ALLOWED_TAGS: [
    ...["a", "blockquote", "br", "code", "del", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "strong"],
    ...["table", "tbody", "td", "th", "thead", "tr", "ul"],
  ],
  ALLOWED_ATTR: ["align", "class", "href", "start"],
  ALLOWED_URI_REGEXP: SAFE_ADDRESS,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** The markdown dialect: GitHub's, with markup shown as the text that it is, and images as links to them. */
const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => link(href, escaped(text || href)),
    link({ href, tokens }) {
      return link(href, this.parser.parseInline(tokens));
    },
    heading({ depth, tokens }) {
      const level = Math.min(6, depth + HEADING_BELOW);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    code({ text, lang }) {
      const language = /^[\w+#.-]{1,30}/.exec(lang ?? "")?.[0] ?? "";
      return `<pre><code class="language-${language}">${escaped(text)}</code></pre>`;
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

/** The blocks of a text, as marked's tokens; each has its source as `raw`. */
export function blocksOf(text) {
  return marked.lexer(text);
}

/** Some of these blocks as a fragment. */
export function fragmentOf(tokens) {
  const fragment = DOMPurify.sanitize(marked.parser(tokens), CLEAN);
  for (const anchor of fragment.querySelectorAll("a")) {
    if (!anchor.hasAttribute("href")) continue;
    anchor.target = "_blank";
    anchor.rel = "noopener noreferrer nofollow";
    anchor.title = anchor.getAttribute("href"); // where it leads, whatever it says
  }
  for (const table of fragment.querySelectorAll("table")) {
    const frame = document.createElement("div");
    frame.className = "table-frame";
    frame.tabIndex = 0; // so that a keyboard can scroll it
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const pre of fragment.querySelectorAll("pre")) pre.replaceWith(codeFigure(pre));
  for (const block of fragment.children) block.dir = "auto";
  return fragment;
}

function link(href, inner) {
  return SAFE_ADDRESS.test(href) ? `<a href="${escaped(href)}">${inner}</a>` : inner;
}

function escaped(text) {
  const signs = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (sign) => signs[sign]);
}
