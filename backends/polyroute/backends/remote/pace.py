"""How fast things may be begun that nobody waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pace:
    """`burst` at once, then `per_s` a second; the generic cell rate algorithm (ITU-T I.371), with waiting in line."""

    def __init__(
        self,
        burst: int,
        per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval_s = 1 / per_s
        self._ahead_s = (burst - 1) / per_s
        self._due = float("-inf")
        self._clock = clock
        self._sleep = sleep

    async def turn(self) -> None:
        """Returns when the caller may begin."""
        now = self._clock()
        self._due = max(self._due, now)
        wait_s = self._due - self._ahead_s - now
        self._due += self._interval_s
        if wait_s > 0:
            await self._sleep(wait_s)
