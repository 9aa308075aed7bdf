"""Whatever a model writes, the page runs none of it, loads nothing for it, and stays usable."""

from __future__ import annotations

from typing import Any, Final

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.asking import ask
from tests.browser.conftest import Opens
from tests.browser.looks import PHONE
from tests.browser.peer import Peer

ATTACKS: Final = {
    "script": "<script>window.owned = 1</script>",
    "image": "<img src=x onerror='window.owned = 2'><svg onload=window.owned=3>",
    "frame": "<iframe srcdoc='<script>parent.owned = 4</script>'></iframe><object data='javascript:owned=5'></object>",
    "link": "[press me](javascript:window.owned=6) [me](  JaVaScRiPt&#58;owned=7) [data](data:text/html,1)",
    "raw link": "<a href='javascript:window.owned=8' onclick='window.owned=9'>press me</a>",
    "attributes": '[x](https://example.com "onmouseover=window.owned=10") ![y](https://example.com/"onerror="owned=11)',
    "form": "<form action=/v1/generate method=post><button formaction='javascript:owned=12'>press me</button></form>",
    "style": "<style>body { display: none }</style><p style='position:fixed;inset:0;background:red'>over all</p>",
    "base": "<base href='https://example.com/'><meta http-equiv=refresh content='0;url=https://example.com/'>",
    "image of another": "![track me](https://example.com/pixel.png)\n\n<img src='https://example.com/pixel.png'>",
    "mutation": "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=owned=13&gt;'>",
    "code": "```html\n<script>window.owned = 14</script>\n```\n\n`<img src=x onerror=owned=15>`",
    "language": '```"><img src=x onerror=owned=16>\nx\n```',
    "clobbering": "<form id=app><input name=body></form><a id=owned href='cid:owned'>x</a><img name=getElementById>",
}

INSIDE: Final = """(root) => ({
  tags: [...new Set([...root.querySelectorAll("*")].map((node) => node.localName))],
  handlers: [...root.querySelectorAll("*")].flatMap((node) => node.getAttributeNames()).filter((n) => /^on/.test(n)),
  links: [...root.querySelectorAll("a[href]")].map((a) => [new URL(a.href).protocol, a.rel, a.target]),
  styled: root.querySelectorAll("[style], [id], [name]").length,
})"""


async def shown(page: Page, question: str = "Be evil") -> Locator:
    return (await ask(page, question)).locator(".rendered")


@pytest.mark.parametrize("attack", ATTACKS)
async def test_nothing_of_it_is_run_loaded_or_followed(opens: Opens, peer: Peer, attack: str) -> None:
    text = ATTACKS[attack]
    middle = len(text) // 2
    peer.says("team/plain", "Before.\n\n", text[:middle], text[middle:], "\n\nAfter.", pause_s=0.02)
    page = await opens("/?model=team/plain")
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    rendered = await shown(page)
    found: dict[str, Any] = await rendered.evaluate(INSIDE)
    assert not {"script", "img", "svg", "iframe", "object", "form", "style", "base", "meta", "math"} & set(
        found["tags"]
    )
    assert found["handlers"] == []
    assert found["styled"] == 0
    assert all(protocol in ("http:", "https:", "mailto:") for protocol, _, _ in found["links"])
    assert all("noopener" in rel and target == "_blank" for _, rel, target in found["links"])
    for pressed in await rendered.get_by_text("press me").all():
        await pressed.click()
    assert await page.evaluate("window.owned?.href ?? window.owned") is None
    assert not any("example.com" in url for url in loaded)
    await expect(rendered.get_by_text("Before.")).to_be_visible()
    await expect(rendered.get_by_text("After.")).to_be_visible()
    await expect(page.get_by_role("link", name="Compare")).to_be_visible()


async def test_broken_markdown_loses_no_words(opens: Opens, peer: Peer) -> None:
    broken = (
        "**bold *both `code\n\n| a | b\n|---\n| 1\n\n> > > deep\n\n1. one\n   - two\n```py\nnever closed [link](http://"
    )
    peer.says("team/plain", *broken)
    rendered = await shown(await opens("/?model=team/plain"))
    text = await rendered.inner_text()
    for word in ("bold", "both", "code", "deep", "one", "two", "never closed", "[link](http://"):
        assert word in text


async def test_signs_that_turn_the_order_around_stay_in_their_block(opens: Opens, peer: Peer) -> None:
    peer.says(
        "team/plain", "\u202eevil\u202c and \u2067more\n\n", "שלום עולם\n\n", "zero\u200bwidth\u2060joined\n\nplain end"
    )
    page = await opens("/?model=team/plain")
    rendered = await shown(page)
    blocks = rendered.locator("p")
    assert await blocks.nth(1).evaluate("(p) => getComputedStyle(p).direction") == "rtl"
    assert await blocks.last.evaluate("(p) => getComputedStyle(p).direction") == "ltr"
    isolated = "(p) => /isolate|plaintext/.test(getComputedStyle(p).unicodeBidi)"
    assert await blocks.first.evaluate(f"(p) => ({isolated})(p) || ({isolated})(p.parentElement)")


async def test_a_megabyte_on_one_line_leaves_the_page_usable_on_a_phone(opens: Opens, peer: Peer) -> None:
    peer.says("team/plain", *["x" * 4096] * 256, "END")
    page = await opens("/?model=team/plain", PHONE)
    rendered = await shown(page)
    assert await rendered.evaluate("(root) => root.textContent.length") == 2**20 + 3
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE.width
    await page.get_by_role("link", name="Compare").click()
    await expect(page.get_by_role("heading", name="Compare")).to_be_attached()


async def test_blocks_that_are_complete_are_not_touched_again(opens: Opens, peer: Peer) -> None:
    """So that a long answer costs a frame no more than a short one, however fast it comes."""
    paragraphs = [
        f"Paragraph **{n}** of many, with `code` and a [link](https://example.com/{n}).\n\n" for n in range(300)
    ]
    peer.says("team/plain", "The first one.\n\n", *paragraphs)
    page = await opens("/?model=team/plain")
    await page.evaluate("""() => {
      window.seen = { touched: 0, batches: 0, frames: 0 };
      const count = () => { seen.frames += 1; requestAnimationFrame(count); };
      requestAnimationFrame(count);
      new MutationObserver((records) => {
        seen.batches += 1;
        const first = document.querySelector(".rendered > :first-child");
        if (seen.later) seen.touched += records.filter(({ target }) => first.contains(target)).length;
        seen.later = document.querySelectorAll(".rendered > *").length > 3;
      }).observe(document.body, { subtree: true, childList: true, characterData: true });
    }""")
    rendered = await shown(page)
    await expect(rendered.get_by_text("Paragraph 299")).to_be_attached()
    seen = await page.evaluate("seen")
    assert seen["touched"] == 0
    assert seen["batches"] <= 3 * seen["frames"], "updates are gathered by frame, not made for each of 300 parts"
