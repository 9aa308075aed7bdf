"""How long streams wait for their readers, watched by one timer for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from polyroute.core.errors import Cancelled
from polyroute.core.wait import Wait

STALL_S: Final = 60.0
"""How long a caller may leave unread what was sent before it is taken to have left, in seconds: it holds a permit."""

T = TypeVar("T")


class Patience:
    """Writes to readers; one that leaves something waiting for `limit_s` seconds has left.

    A stream that has nothing to write costs nothing here, and a write no timer of its own: all have the same limit, so
    the first of those that wait is the first to be late.
    """

    __slots__ = ("_limit_s", "_timer", "_waiting")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._waiting: dict[Wait, float] = {}  # by when they are late, in that order
        self._timer: asyncio.TimerHandle | None = None

    async def write(self, write: Callable[[T], Awaitable[None]], part: T) -> None:
        """Writes `part`, and waits while the reader is behind; raises `Cancelled` where it does not catch up."""
        wait, loop = Wait(), asyncio.get_running_loop()
        self._waiting[wait] = due = loop.time() + self._limit_s
        if self._timer is None:
            self._timer = loop.call_at(due, self._look, loop)
        try:
            await write(part)
        except asyncio.CancelledError:
            if wait.was_cut():
                raise Cancelled(f"the caller left the stream unread for {self._limit_s:g} s") from None
            raise
        finally:
            self._waiting.pop(wait, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Gives up those who are late, and comes back when the next one would be."""
        self._timer = None
        while self._waiting:
            wait, due = next(iter(self._waiting.items()))
            if due > loop.time():
                self._timer = loop.call_at(due, self._look, loop)
                return
            del self._waiting[wait]
            wait.cut()
