"""Every page of the console is accessible in every look, and fits its window."""

from __future__ import annotations

import pytest

from tests.browser.axe import violations
from tests.browser.conftest import Opens
from tests.browser.looks import LOOKS, PHONE, Look
from tests.browser.peer import Peer

PAGES = ("/", "/#/compare", "/#/operate")


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
@pytest.mark.parametrize("path", PAGES)
async def test_axe_finds_nothing(opens: Opens, path: str, look: Look) -> None:
    page = await opens(path, look)
    await page.get_by_role("heading", level=1).wait_for()
    assert await violations(page) == []


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
@pytest.mark.parametrize("path", PAGES)
async def test_nothing_is_wider_than_the_window(opens: Opens, path: str, look: Look) -> None:
    page = await opens(path, look)
    await page.get_by_role("heading", level=1).wait_for()
    assert await page.evaluate("document.documentElement.scrollWidth") <= look.width


async def test_a_name_can_be_read_on_a_phone(opens: Opens) -> None:
    page = await opens("/?model=team/absent", PHONE)
    field = page.get_by_role("combobox", name="Model")
    await page.get_by_text("unhealthy").first.wait_for()
    assert await field.evaluate("field => field.scrollWidth <= field.clientWidth"), "nothing of it is cut off"


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
async def test_axe_finds_nothing_in_answers_with_all_that_is_folded_away(opens: Opens, peer: Peer, look: Look) -> None:
    peer.says(
        "team/plain", "# A\n\n1. `one`\n2. [two](https://example.com)\n\n```python\nthree\n```\n\n|a|b|\n|-|-|\n|1|2|\n"
    )
    page = await opens("/?model=chat#/compare", look)
    await page.get_by_label("Prompt", exact=True).fill("Show me everything")
    await page.get_by_label("Blind").check()
    await page.get_by_role("button", name="Ask all").click()
    await page.get_by_role("group", name="Which answer is best?").wait_for()
    assert await violations(page) == []
    await page.get_by_role("button", name="Show the names without a vote").click()
    for folded in ("Why this way", "Copy as", "System prompt and parameters"):
        await page.get_by_text(folded).first.click()
    assert await violations(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= look.width
