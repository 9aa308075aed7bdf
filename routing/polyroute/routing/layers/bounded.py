"""A call ends by its deadline, by its model's timeout, and begins by its model's first-token timeout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from polyroute.core.call import Call, Service
from polyroute.core.errors import DeadlineExceeded, FirstTokenTimeout
from polyroute.core.event import Event
from polyroute.routing.streams import generator


class Bounded:
    """Waits for each event no longer than is allowed; the time between two events is the consumer's.

    Times are in seconds and run from when the call reaches this layer, which is after the queue. No timeout stays
    open across a `yield`, where it would fire in the consumer.
    """

    def __init__(
        self,
        inner: Service,
        name: str,
        *,
        timeout_s: float | None = None,
        first_token_timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._name = name
        self._timeout_s = timeout_s
        self._first_token_timeout_s = first_token_timeout_s
        self._clock = clock

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        begun = self._clock()
        ends = _Ends(self._name, begun, call.deadline, self._timeout_s)
        first = None if self._first_token_timeout_s is None else begun + self._first_token_timeout_s
        until, late = ends.with_first(first)
        async with aclosing(generator(self._inner(call))) as events:
            while True:
                scope = asyncio.timeout(None if until is None else until - self._clock())
                try:
                    async with scope:
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if not scope.expired():
                        raise
                    raise late from None
                yield event
                until, late = ends.until, ends.late


class _Ends:
    """When a call has to be over, and what it is told when it is not."""

    def __init__(self, name: str, begun: float, deadline: float | None, timeout_s: float | None) -> None:
        self._name = name
        self._begun = begun
        self.until = deadline
        self.late = DeadlineExceeded(f"`{name}`: the caller's deadline passed before the answer was complete")
        if timeout_s is not None and (deadline is None or begun + timeout_s < deadline):
            self.until = begun + timeout_s
            self.late = DeadlineExceeded(f"`{name}`: the answer was not complete within its timeout of {timeout_s:g} s")

    def with_first(self, first: float | None) -> tuple[float | None, DeadlineExceeded]:
        """The same for the first event."""
        if first is None or (self.until is not None and self.until <= first):
            return self.until, self.late
        limit = first - self._begun
        return first, FirstTokenTimeout(f"`{self._name}`: no first token within {limit:g} s")
