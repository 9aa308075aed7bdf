"""Sees what goes wrong in a page behind a person's back: errors in its console, policy violations, failed requests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from playwright.async_api import ConsoleMessage, Page, Request

VIOLATIONS: Final = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`content security policy: ${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
"""


@dataclass(slots=True)
class Watched:
    """What went wrong in a page, and what a test says may."""

    found: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def allow(self, pattern: str) -> None:
        """What has this regular expression in it may happen in this test."""
        self.allowed.append(pattern)

    @property
    def problems(self) -> list[str]:
        """What happened and may not."""
        return [text for text in self.found if not any(re.search(pattern, text) for pattern in self.allowed)]

    async def watch(self, page: Page) -> None:
        """Begins to watch a page; what it has done before is not seen."""
        page.on("console", lambda message: self._said(message))  # bound methods would need an instance without slots
        page.on("pageerror", lambda error: self.found.append(f"uncaught: {error}"))
        page.on("requestfailed", lambda request: self._failed(request))
        await page.add_init_script(VIOLATIONS)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self.found.append(f"console.{message.type}: {message.text} ({message.location.get('url', '')})")

    def _failed(self, request: Request) -> None:
        self.found.append(f"{request.method} {request.url}: {request.failure}")
