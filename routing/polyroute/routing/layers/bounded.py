"""A call ends by its deadline and by its model's timeout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from polyroute.core.call import Call, Service
from polyroute.core.errors import DeadlineExceeded
from polyroute.core.event import Event
from polyroute.core.wait import Wait
from polyroute.routing.streams import generator


class Bounded:
    """Waits for each event no longer than is allowed; the time between two events is the consumer's.

    Times are in seconds and run from when the call reaches this layer, which is after the queue. Nothing fires across
    a `yield`, in the consumer: who comes back too late gets what is there without waiting.
    """

    def __init__(
        self,
        inner: Service,
        name: str,
        *,
        timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._name = name
        self._timeout_s = timeout_s
        self._clock = clock

    def __call__(self, call: Call) -> AsyncIterator[Event]:
        until, late = self._end(call)
        if until is None:  # nothing to watch, as in most runs that calls share
            return self._inner(call)
        return self._watched(call, until, late)

    async def _watched(self, call: Call, until: float, late: str) -> AsyncIterator[Event]:
        wait, events = Wait(), generator(self._inner(call))
        timer = asyncio.get_running_loop().call_later(max(0.0, until - self._clock()), wait.cut)
        try:
            async for event in events:
                wait.was_cut()
                yield event
                wait.again()
        except asyncio.CancelledError:
            if wait.was_cut():
                raise DeadlineExceeded(f"`{self._name}`: {late}") from None
            raise
        finally:
            timer.cancel()
            wait.was_cut()
            await events.aclose()

    def _end(self, call: Call) -> tuple[float | None, str]:
        """When the call has to be over, and what it is told when it is not."""
        begun = self._clock()
        if self._timeout_s is not None and (call.deadline is None or begun + self._timeout_s < call.deadline):
            return begun + self._timeout_s, f"the answer was not complete within its timeout of {self._timeout_s:g} s"
        return call.deadline, "the caller's deadline passed before the answer was complete"
