"""A call takes a permit of its deployment, and holds it until its stream closes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

from polyroute.core.call import Call, Service
from polyroute.core.event import Event, Finished
from polyroute.routing.permits import Permits
from polyroute.routing.streams import generator


class Limited:
    """Waits for a permit, then forwards; says in `Finished` how long the wait and the work below took."""

    def __init__(self, inner: Service, permits: Permits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._permits = permits
        self._clock = clock

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        asked = self._clock()
        permit = await self._permits.acquire(call.deadline)
        try:
            queue_s = self._clock() - asked
            backend_s = 0.0
            async with aclosing(generator(self._inner(call))) as events:
                while True:
                    begun = self._clock()
                    try:
                        event = await anext(events)
                    except StopAsyncIteration:
                        return
                    backend_s += self._clock() - begun
                    if isinstance(event, Finished):
                        event = replace(event, timing=replace(event.timing, queue_s=queue_s, backend_s=backend_s))
                    yield event
        finally:
            permit.release()
