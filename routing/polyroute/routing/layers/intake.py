"""Calls are let in until the server leaves, and the last to leave is waited for."""

from __future__ import annotations

import asyncio
from typing import Final

from polyroute.core.errors import Draining
from polyroute.core.wait import Wait
from polyroute.routing.occupancy import Occupancy

_COME_BACK_S: Final = 5.0


class Intake:
    """Lets calls in until it is closed, and knows when the last has left."""

    def __init__(self) -> None:
        self._occupancy = Occupancy()
        self._waits: set[Wait] = set()
        self.closed = False
        """Whether new calls are refused."""

    def enter(self) -> Wait:
        """One more call, of the current task, is inside until it leaves: what is given back is the wait that it begins
        with. Raises `Draining` once this is closed."""
        if self.closed:
            raise _shutting_down()
        wait = Wait()
        self._waits.add(wait)
        self._occupancy.enter()
        return wait

    def leave(self, wait: Wait, error: BaseException | None) -> BaseException | None:
        """A call has left, with `error` if it has failed: `Draining` in its place where it was cut while it waited."""
        self._waits.discard(wait)
        self._occupancy.leave()
        return _shutting_down() if wait.was_cut() and isinstance(error, asyncio.CancelledError) else error

    def cut(self) -> None:
        """Ends the calls that are still inside with `Draining`: at once, or when they have to wait again."""
        self.closed = True
        for wait in self._waits:
            wait.cut()

    async def drain(self, grace_s: float) -> bool:
        """Refuses new calls and waits for those inside, `grace_s` seconds at most; says whether all have ended."""
        self.closed = True
        return await self._occupancy.empty(grace_s)


def _shutting_down() -> Draining:
    return Draining("the server is shutting down", retry_after_s=_COME_BACK_S)
