"""Calls are let in until the server leaves, and the last to leave is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from polyroute.core.call import Call, Service
from polyroute.core.errors import Draining
from polyroute.core.event import Event
from polyroute.routing.occupancy import Occupancy
from polyroute.routing.streams import generator

_COME_BACK_S: Final = 5.0


class Intake:
    """Lets calls in until it is closed, and knows when the last has left."""

    def __init__(self, inner: Service) -> None:
        self._inner = inner
        self._occupancy = Occupancy()
        self._waits: set[asyncio.Timeout] = set()
        self._cut = False
        self.closed = False
        """Whether new calls are refused."""

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        if self.closed:
            raise _shutting_down()
        self._occupancy.enter()
        try:
            async with aclosing(generator(self._inner(call))) as events:
                while True:
                    try:
                        event = await self._next(events)
                    except StopAsyncIteration:
                        return
                    yield event
        finally:
            self._occupancy.leave()

    async def _next(self, events: AsyncGenerator[Event, None]) -> Event:
        if self._cut:
            raise _shutting_down()
        async with asyncio.timeout(None) as wait:
            self._waits.add(wait)
            try:
                return await anext(events)
            except asyncio.CancelledError:
                if self._cut and wait.expired():
                    raise _shutting_down() from None
                raise
            finally:
                self._waits.discard(wait)

    def cut(self) -> None:
        """Ends the calls that are still inside with `Draining`, at once."""
        self.closed = self._cut = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            wait.reschedule(now)

    async def drain(self, grace_s: float) -> bool:
        """Refuses new calls and waits for those inside, `grace_s` seconds at most; says whether all have ended."""
        self.closed = True
        return await self._occupancy.empty(grace_s)


def _shutting_down() -> Draining:
    return Draining("the server is shutting down", retry_after_s=_COME_BACK_S)
