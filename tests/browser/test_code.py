"""Code in an answer is whole, is copied as it was written, and hides nothing; nor does odd text stop the page."""

from __future__ import annotations

from playwright.async_api import Locator, expect

from tests.browser.chatting import answers, messages, say
from tests.browser.conftest import Opens
from tests.browser.peer import Peer


async def shown(opens: Opens, peer: Peer, *parts: str) -> Locator:
    peer.says("team/plain", *parts)
    return await say(await opens("/?model=team/plain"), "Show it")


async def test_signs_that_cannot_be_seen_are_shown_in_code(opens: Opens, peer: Peer) -> None:
    code = "if admin:\u202e \u2066# check\u2069 \u200bok"
    answer = await shown(opens, peer, f"```\n{code}\n```\n")
    signs = await answer.locator(".unseen-sign").all_inner_texts()
    assert signs == ["U+202E", "U+2066", "U+2069", "U+200B"]
    await answer.get_by_role("button", name="Copy code").click()
    await expect(answer.get_by_role("button", name="Copy code")).to_have_text("Copied")
    assert await answer.page.evaluate("navigator.clipboard.readText()") == code


async def test_a_long_listing_is_whole_and_copied_whole(opens: Opens, peer: Peer) -> None:
    lines = [f"line {at}" for at in range(1_000)]
    answer = await shown(opens, peer, "```\n", *(f"{line}\n" for line in lines), "```\n")
    await expect(answer.locator("figure.code .piece")).to_have_count(10)
    await answer.get_by_role("button", name="Copy code").click()
    await expect(answer.get_by_role("button", name="Copy code")).to_have_text("Copied")
    assert await answer.page.evaluate("navigator.clipboard.readText()") == "\n".join(lines)
    assert (await answer.locator("figure.code code").inner_text()).split("\n") == lines


async def test_a_megabyte_of_broken_markdown_on_one_line_is_shown_as_it_is(opens: Opens, peer: Peer) -> None:
    answer = await shown(opens, peer, *["x[*_`<" * 2_500] * 70)
    await expect(answer.locator(".plain")).to_have_count(1)
    assert await answer.locator(".plain").evaluate("e => e.textContent.length") == 70 * 15_000
    assert await messages(answer.page).evaluate("e => e.scrollWidth <= e.clientWidth")
    peer.says("team/plain", "still here")
    await say(answer.page, "And now?")
    await expect(answers(answer.page).nth(1)).to_contain_text("still here")
