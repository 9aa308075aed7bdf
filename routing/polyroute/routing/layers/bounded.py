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
    a `yield`, in the consumer.
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
        limit, events = _Limit(until - self._clock()), generator(self._inner(call))
        try:
            async for event in events:
                limit.has()
                yield event
                limit.waits()
        except asyncio.CancelledError:
            if limit.end():
                raise DeadlineExceeded(f"`{self._name}`: {late}") from None
            raise
        finally:
            limit.end()
            await events.aclose()

    def _end(self, call: Call) -> tuple[float | None, str]:
        """When the call has to be over, and what it is told when it is not."""
        begun = self._clock()
        if self._timeout_s is not None and (call.deadline is None or begun + self._timeout_s < call.deadline):
            return begun + self._timeout_s, f"the answer was not complete within its timeout of {self._timeout_s:g} s"
        return call.deadline, "the caller's deadline passed before the answer was complete"


class _Limit:
    """The waits of one call for its events, none beyond `after_s` seconds from now: one timer for all of them.

    The call waits from the making of this on. Who comes too late gets what is there without waiting.
    """

    __slots__ = ("_loop", "_passed", "_timer", "_wait")

    def __init__(self, after_s: float) -> None:
        self._passed = False
        self._wait = Wait()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(max(0.0, after_s), self._pass)

    def has(self) -> None:
        """What the call waited for is there."""
        self._wait.was_cut()

    def waits(self) -> None:
        """The call waits for what comes next."""
        self._wait.again()
        if self._passed:
            self._timer = self._loop.call_later(0, self._pass)

    def end(self) -> bool:
        """There is nothing more to wait for; says whether the limit has ended a wait."""
        self._timer.cancel()
        return self._wait.was_cut()

    def _pass(self) -> None:
        self._passed = True
        self._wait.cut()
