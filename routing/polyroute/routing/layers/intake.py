"""Calls are let in until the server leaves, and the last to leave is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final, cast

from polyroute.core.call import Call, Service
from polyroute.core.errors import Draining
from polyroute.core.event import Event, Whole
from polyroute.routing.occupancy import Occupancy
from polyroute.routing.streams import generator

_COME_BACK_S: Final = 5.0


class Intake:
    """Lets calls in until it is closed, and knows when the last has left. `ready` is what `inner` has at hand."""

    def __init__(self, inner: Service, ready: Callable[[Call], Whole | None] = lambda _: None) -> None:
        self._inner = inner
        self._ready = ready
        self._occupancy = Occupancy()
        self._waits: set[_Wait] = set()
        self._cut = False
        self.closed = False
        """Whether new calls are refused."""

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        if self.closed:
            raise _shutting_down()
        self._occupancy.enter()
        wait = _Wait()
        try:
            async with aclosing(generator(self._inner(call))) as events:
                while True:
                    try:
                        event = await self._next(events, wait)
                    except StopAsyncIteration:
                        return
                    yield event
        finally:
            self._occupancy.leave()

    def at_hand(self, call: Call) -> Whole | None:
        """The answer that is there without waiting, if there is one: the call has left before anybody could wait."""
        return None if self.closed else self._ready(call)

    async def _next(self, events: AsyncGenerator[Event, None], wait: _Wait) -> Event:
        if self._cut:
            raise _shutting_down()
        wait.begin()
        self._waits.add(wait)
        try:
            return await anext(events)
        except BaseException as error:
            if wait.was_cut() and isinstance(error, asyncio.CancelledError):
                raise _shutting_down() from None
            raise
        finally:
            self._waits.discard(wait)

    def cut(self) -> None:
        """Ends the calls that are still inside with `Draining`, at once."""
        self.closed = self._cut = True
        for wait in self._waits:
            wait.cut()

    async def drain(self, grace_s: float) -> bool:
        """Refuses new calls and waits for those inside, `grace_s` seconds at most; says whether all have ended."""
        self.closed = True
        return await self._occupancy.empty(grace_s)


class _Wait:
    """A task that waits for a call's next event, and can be woken: what `asyncio.timeout` does, for less an event."""

    __slots__ = ("_cancelling", "_cut", "_task")

    def begin(self) -> None:
        """The current task waits from here on."""
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancelling, self._cut = self._task.cancelling(), False

    def cut(self) -> None:
        """Cancels what is waited for."""
        if not self._cut:
            self._cut = True
            self._task.cancel()

    def was_cut(self) -> bool:
        """Whether it was that which cancelled the task, and nobody else did beside."""
        return self._cut and self._task.uncancel() <= self._cancelling


def _shutting_down() -> Draining:
    return Draining("the server is shutting down", retry_after_s=_COME_BACK_S)
