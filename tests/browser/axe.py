"""Has axe-core look at a page (https://github.com/dequelabs/axe-core, a development dependency)."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from playwright.async_api import Page

from tests.e2e.running import NODE_DIR

SOURCE: Final = NODE_DIR / "node_modules" / "axe-core" / "axe.min.js"


async def violations(page: Page) -> list[str]:
    """What axe-core finds: rule, what is wrong, and where.

    Skips the test where axe-core is not installed, except in CI.
    """
    if not SOURCE.exists() and os.environ.get("CI") != "true":
        pytest.skip("axe-core is not installed: run `make test` where npm is")
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(SOURCE.read_text())
    found: dict[str, Any] = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {violation['help']}: {node['html']}: {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
