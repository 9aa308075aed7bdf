"""Every page of the console is accessible in every look, and fits its window."""

from __future__ import annotations

import pytest

from tests.browser.axe import violations
from tests.browser.conftest import Opens
from tests.browser.looks import LOOKS, Look

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
