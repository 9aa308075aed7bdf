"""Calls are let in until the server leaves, and the last to leave is waited for."""

from __future__ import annotations

import asyncio
from typing import Final

from polyroute.core.errors import Draining
from polyroute.core.wait import Wait
from polyroute.routing.occupancy import Occupancy, Occupied

_COME_BACK_S: Final = 5.0


class Intake:
    """Lets calls in until it is closed, and knows when the last has left."""

    def __init__(self) -> None:
        self._occupancy = Occupancy()
        self._waits: set[Wait] = set()
        self._cut = False
        self.closed = False
        """Whether new calls are refused."""

    def admitted(self) -> Occupied:
        """One more call, which is inside for as long as the block lasts; raises `Draining` once this is closed."""
        if self.closed:
            raise _shutting_down()
        return Occupied((self._occupancy,))

    def waiting(self) -> Waiting:
        """For a call that is inside: a block within which it waits for its next event, to be entered for each."""
        return Waiting(self)

    def cut(self) -> None:
        """Ends the calls that are still inside with `Draining`, at once."""
        self.closed = self._cut = True
        for wait in self._waits:
            wait.cut()

    async def drain(self, grace_s: float) -> bool:
        """Refuses new calls and waits for those inside, `grace_s` seconds at most; says whether all have ended."""
        self.closed = True
        return await self._occupancy.empty(grace_s)

    def wait(self) -> Wait:
        """The current task waits from here on, until `over`; raises `Draining` where calls are cut already."""
        if self._cut:
            raise _shutting_down()
        wait = Wait()
        self._waits.add(wait)
        return wait

    def over(self, wait: Wait, error: BaseException | None) -> None:
        """What is waited for is there, or `error` is; raises `Draining` where that is because calls were cut."""
        self._waits.discard(wait)
        if wait.was_cut() and isinstance(error, asyncio.CancelledError):
            raise _shutting_down() from None


class Waiting:
    """See `Intake.waiting`: a block costs an event less than a coroutine of its own."""

    __slots__ = ("_intake", "_wait")

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def __enter__(self) -> None:
        self._wait = self._intake.wait()

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self._intake.over(self._wait, error)


def _shutting_down() -> Draining:
    return Draining("the server is shutting down", retry_after_s=_COME_BACK_S)
