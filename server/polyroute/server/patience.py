"""How long a stream waits for its reader, watched by one timer however much is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from polyroute.core.errors import Cancelled


class Patience:
    """Writes by `write`, from one task; a reader that leaves something waiting for `limit_s` seconds has left.

    It does what `asyncio.timeout` would around each write, for less a write: most are done at once.
    """

    __slots__ = ("_cancelling", "_limit_s", "_loop", "_over", "_since", "_task", "_timer", "_write")

    def __init__(self, write: Callable[[Any], Awaitable[None]], limit_s: float) -> None:
        self._write = write
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._since: float | None = None
        self._over = False
        self._timer = self._loop.call_later(limit_s, self._look)

    async def write(self, part: Any) -> None:
        """Writes, and waits while the reader is behind; raises `Cancelled` where it does not catch up."""
        self._cancelling, self._since = self._task.cancelling(), self._loop.time()
        try:
            await self._write(part)
        except asyncio.CancelledError:
            if self._over and self._task.uncancel() <= self._cancelling:  # and nobody else has cancelled it beside
                raise Cancelled(f"the caller left the stream unread for {self._limit_s:g} s") from None
            raise
        finally:
            self._since = None

    def end(self) -> None:
        """There is nothing more to write."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        due = (now if self._since is None else self._since) + self._limit_s
        if due > now:
            self._timer = self._loop.call_at(due, self._look)
        else:
            self._over = True
            self._task.cancel()
