"""What one shadow of one route may do at once: its own permits, queue and breaker."""

from __future__ import annotations

import asyncio
from typing import Final

from polyroute.routing.plan import Shadow

FAILURES: Final = 5
"""Copies that fail in a row before no more are made for a while."""

REST_S: Final = 30.0
"""How long that is, in seconds."""


class Lane:
    """Lets copies through, `shadow.max_concurrency` at a time and `shadow.max_queue` waiting; refuses the others."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow
        self.inside = 0
        """Copies that were let in and are not over."""
        self.running = 0
        """Those of them whose turn it is."""
        self._permits = asyncio.Semaphore(shadow.max_concurrency)
        self._failures = 0
        self._closed_until = -1.0

    def __repr__(self) -> str:
        return f"<Lane {self.shadow.deployment} {self.running} running of {self.inside}>"

    def admit(self, now: float) -> str:
        """Lets a copy in, until `left`; or says why not. `now` is in seconds, on the clock that `ended` is told."""
        if now < self._closed_until:
            return "breaker_open"
        if self.inside >= self.shadow.max_concurrency + self.shadow.max_queue:
            return "queue_full"
        self.inside += 1
        return ""

    def left(self) -> None:
        """A copy that was let in is over, however it ended."""
        self.inside -= 1

    async def enter(self) -> None:
        """Waits for the turn of a copy that was let in; to be followed by one `leave`."""
        await self._permits.acquire()
        self.running += 1

    def leave(self) -> None:
        """The copy has had its turn."""
        self.running -= 1
        self._permits.release()

    def ended(self, ok: bool, now: float) -> None:
        """A copy was answered or has failed."""
        self._failures = 0 if ok else self._failures + 1
        if self._failures >= FAILURES:
            self._failures = 0
            self._closed_until = now + REST_S
