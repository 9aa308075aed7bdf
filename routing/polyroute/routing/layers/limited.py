"""A call takes a permit of its deployment, and holds it until its stream closes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

from msgspec.structs import replace

from polyroute.core.attributes import WAIT
from polyroute.core.call import Call, Service
from polyroute.core.errors import FirstTokenTimeout, Overloaded, PolyrouteError
from polyroute.core.event import Event, Finished, Started, Token
from polyroute.core.wait_span import keep_wait
from polyroute.routing.metrics import Metrics
from polyroute.routing.permits import REFUSAL, AnyPermits
from polyroute.routing.streams import generator


class Limited:
    """Waits for a permit, then forwards; says in `Finished` how long the wait and the work below took.

    The permit is told when the answer begins and whether there was too much to do, from which an adaptive limit learns.
    """

    def __init__(
        self, inner: Service, permits: AnyPermits, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inner = inner
        self._permits = permits
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        asked = self._clock()
        try:
            permit = await self._permits.acquire(caller_of(call), call.begin_by)
        except BaseException as error:
            self._refused(call, error, asked)
            raise
        try:
            begun = self._clock()
            queue_s, backend_s = begun - asked, 0.0
            self._metrics.queued(self._permits.name, queue_s)
            if call.trace.span is not None:
                keep_wait(call.trace.span, "queue", queue_s, {WAIT: queue_s})
            events = generator(self._inner(call))
            try:
                async for event in events:
                    backend_s += self._clock() - begun
                    if isinstance(event, Token):
                        pass  # most are
                    elif isinstance(event, Started):
                        permit.answered()
                    elif isinstance(event, Finished):
                        event = replace(event, timing=replace(event.timing, queue_s=queue_s, backend_s=backend_s))
                    yield event
                    begun = self._clock()
            finally:
                await events.aclose()
        except (Overloaded, FirstTokenTimeout):
            permit.overloaded()
            raise
        finally:
            permit.release()

    def _refused(self, call: Call, error: BaseException, asked: float) -> None:
        """The call, which `asked` then, has no permit, or has left before it had one."""
        if isinstance(error, PolyrouteError) and (refusal := error.metadata.get(REFUSAL)) is not None:
            self._metrics.refused(self._permits.name, refusal)
        if call.trace.span is not None:
            queue_s = self._clock() - asked
            keep_wait(call.trace.span, "queue", queue_s, {WAIT: queue_s}, error)


def caller_of(call: Call) -> str:
    """Whom the queue takes a call to be from: the first of user, session and affinity key that it has.

    They are what callers say of themselves, so turns are fair among callers who mean well. Whoever names nobody is one
    caller together with all others that do not: the address at the other end is everybody's behind a proxy. An
    authenticated caller will stand before them all.
    """
    routing = call.request.routing
    if routing.user:
        return f"user:{routing.user}"
    if routing.session:
        return f"session:{routing.session}"
    return f"affinity_key:{routing.affinity_key}" if routing.affinity_key else ""
