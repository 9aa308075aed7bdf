"""Every call leaves one log line and its counts, however it ends, and a span where it is sampled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

import structlog

from polyroute.core.attributes import CHAT, COMPLETION
from polyroute.core.call import Call, Service
from polyroute.core.errors import Internal, PolyrouteError
from polyroute.core.event import Event, Whole
from polyroute.core.trace import Begin, untraced
from polyroute.routing.cache.look_event import note_look
from polyroute.routing.call_line import write_line
from polyroute.routing.call_span import describe, entrance_attributes
from polyroute.routing.layers.intake import Intake
from polyroute.routing.metrics import Metrics
from polyroute.routing.observation import Observation
from polyroute.routing.streams import generator

_FACES: Final = {"grpc": "grpc", "http": "rest"}

log = structlog.get_logger(__name__)


class Observed:
    """Outermost of the layers: what it sees is what the caller sees. `intake` lets calls in, and ends them.

    `ready` gives whole answers that are there without waiting; they need not pass the layers (`at_hand`).
    `begin` begins the trace of each call. Prompts and answers it looks at only where `content_chars` is above 0: then
    the spans of calls have so many characters of each.
    """

    def __init__(
        self,
        inner: Service,
        metrics: Metrics,
        *,
        intake: Intake | None = None,
        begin: Begin = untraced,
        content_chars: int = 0,
        ready: Callable[[Call], Whole | None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._intake = intake or Intake()
        self._ready = ready
        self._metrics = metrics
        self._begin = begin
        self._content_chars = content_chars
        self._clock = clock

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        seen = self._seen(call)
        self._metrics.call_begun()
        try:
            with self._intake.admitted():
                async with aclosing(generator(self._inner(call.under(seen.trace)))) as events:
                    waiting = self._intake.waiting()
                    while True:
                        with waiting:
                            event = await anext(events, None)
                        if event is None:
                            return
                        event = seen.saw(event)
                        begun = self._clock()
                        yield event
                        seen.held_s += self._clock() - begun
                        seen.complete = seen.complete or isinstance(event, Whole)  # who comes back has taken all of it
        except PolyrouteError as error:
            seen.failed(error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            seen.left()
            raise
        except Exception as error:
            log.exception("call.crashed", request_id=call.request_id, trace_id=seen.trace.trace_id)
            internal = Internal(call.request_id)
            seen.failed(internal)
            raise internal from error
        finally:
            self._over(seen)

    def at_hand(self, call: Call) -> Whole | None:
        """The whole answer, where it is there without waiting: then the call is over, and has left what it leaves.

        None is no refusal, and nothing is told of it: the call goes the way of all others.
        """
        whole = None if self._intake.closed else self._ready(call)
        if whole is None:
            return None
        seen = self._seen(call)
        self._metrics.call_begun()
        if seen.trace.span is not None:
            note_look(seen.trace.span, "hit", "memory")
        whole = seen.took(whole)
        self._over(seen)
        return whole

    def refused(self, call: Call, error: PolyrouteError) -> None:
        """A call that never came this far, since what it asks makes no sense, is one all the same."""
        seen = self._seen(call)
        seen.failed(error)
        seen.over()
        self._metrics.call_rejected(_FACES.get(call.entrance.protocol, ""), error.reason)
        self._tell(seen)

    def _seen(self, call: Call) -> Observation:
        entrance = call.entrance
        trace = self._begin(call.trace, entrance.method, lambda: entrance_attributes(entrance))
        return Observation(call, trace, self._clock, 0 if trace.span is None else self._content_chars)

    def _over(self, seen: Observation) -> None:
        seen.over()
        trace, operation = seen.trace, COMPLETION if seen.call.request.messages is None else CHAT
        self._metrics.call_ended(
            seen.route,
            seen.outcome,
            seen.timing,
            seen.usage,
            operation=operation,
            trace_id="" if trace.span is None else trace.trace_id,
        )
        self._tell(seen)

    def _tell(self, seen: Observation) -> None:
        span = seen.trace.span
        if span is not None:
            describe(span, seen, self._content_chars)
            span.end()
        write_line(seen)
