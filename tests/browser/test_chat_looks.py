"""The chat is accessible with everything open that can be opened, and fits its window."""

from __future__ import annotations

import pytest

from tests.browser.axe import violations
from tests.browser.chatting import model, say
from tests.browser.conftest import Opens
from tests.browser.looks import DARK, LIGHT, PHONE, Look
from tests.browser.peer import Peer

TEXT = (
    "# A\n\n## B\n\n- x [y](https://example.org)\n\n| a |\n|---|\n| 1 |\n\n```python\nx = 1\n```\n\n> quoted `code`\n"
)


@pytest.mark.parametrize("look", [LIGHT, DARK, PHONE], ids=lambda look: look.name)
async def test_axe_finds_nothing_in_a_conversation(opens: Opens, peer: Peer, look: Look) -> None:
    peer.says("team/plain", TEXT)
    page = await opens("/?model=team/plain", look)
    await say(page, "Hello")
    await page.get_by_role("button", name="Parameters", exact=True).click()
    await page.get_by_label("Top p").fill("2")
    assert await violations(page) == []
    await page.get_by_role("button", name="Close the parameters").click()
    await model(page).click()
    await page.get_by_role("option").first.wait_for()
    assert await violations(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= look.width
