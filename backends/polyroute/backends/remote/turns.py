"""Who may ask a peer how it is, and when: of thousands of peers, not all at once."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable


class Turns:
    """`burst` at once, then `per_s` a second; the generic cell rate algorithm (ITU-T I.371), with waiting in line.

    Each line has these to itself: what is in a hurry does not wait behind what is not.
    """

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
        self._due: defaultdict[str, float] = defaultdict(lambda: float("-inf"))
        self._clock = clock
        self._sleep = sleep

    async def turn(self, line: str = "") -> None:
        """Returns when the caller may begin. One that leaves its line before gives its turn back."""
        now = self._clock()
        due = max(self._due[line], now)
        self._due[line] = due + self._interval_s
        wait_s = due - self._ahead_s - now
        if wait_s <= 0:
            return
        try:
            await self._sleep(wait_s)
        except BaseException:
            self._due[line] -= self._interval_s
            raise
