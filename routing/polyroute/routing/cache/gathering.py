"""What is better done together is put off while the event loop has other things to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

GATHER_S: Final = 0.002
"""How long anything is put off at most, in seconds."""
_IDLE_S: Final = 2e-5
"""A turn of the event loop that takes no longer had nothing else to do, in seconds."""
_AS_IDLE: Final = 2.0
"""Nor had one that takes no longer than this many times the shortest, on a machine where that takes long."""


class Gathering:
    """Has `go` called once the event loop has nothing else to do; sooner where it is `full`, and in any case after
    `GATHER_S`. So a loop that is busy gathers, and nobody waits for company while it is idle. `clock` gives seconds.
    """

    def __init__(
        self, go: Callable[[], None], full: Callable[[], bool], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._go = go
        self._full = full
        self._clock = clock
        self._begun = False
        self._shortest_s = float("inf")

    def __repr__(self) -> str:
        return f"<Gathering {'begun' if self._begun else 'not begun'}>"

    def begin(self) -> None:
        """There is something to be done; a second time before it is, this changes nothing."""
        if not self._begun:
            self._begun = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._wait, loop)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """A turn of the loop begins."""
        now = self._clock()
        loop.call_soon(self._turned, loop, now + GATHER_S, now)

    def _turned(self, loop: asyncio.AbstractEventLoop, until: float, before: float) -> None:
        """A turn of the loop has passed since `before`."""
        now = self._clock()
        turn_s = now - before
        self._shortest_s = min(self._shortest_s, turn_s)
        if turn_s > max(_IDLE_S, _AS_IDLE * self._shortest_s) and now < until and not self._full():
            loop.call_soon(self._turned, loop, until, now)
        else:
            self._begun = False
            self._go()
