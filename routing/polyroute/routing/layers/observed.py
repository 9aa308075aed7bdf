"""Every call leaves one log line and its counts, however it ends, and a span where it is sampled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

import structlog

from polyroute.core.attributes import CHAT, COMPLETION
from polyroute.core.call import Call
from polyroute.core.errors import Internal, PolyrouteError
from polyroute.core.event import Event, Route, Whole
from polyroute.core.trace import Begin, untraced
from polyroute.routing.cache.look_event import note_look
from polyroute.routing.call_line import write_line
from polyroute.routing.call_span import describe, entrance_attributes
from polyroute.routing.layers.intake import Intake
from polyroute.routing.metrics import Metrics
from polyroute.routing.observation import Observation

_FACES: Final = {"grpc": "grpc", "http": "rest"}

log = structlog.get_logger(__name__)


class Observed:
    """Looks on at calls from outside of all layers: what it sees is what the caller sees.

    `intake` lets calls in, and ends them. `begin` begins the trace of each call. Prompts and answers it looks at only
    where `content_chars` is above 0: then the spans of calls have so many characters of each.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        intake: Intake | None = None,
        begin: Begin = untraced,
        content_chars: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.intake = intake or Intake()
        self.clock = clock
        self._metrics = metrics
        self._begin = begin
        self._content_chars = content_chars

    def watch(self, call: Call) -> Watch:
        """To be told of what comes of a call, within a block that lasts as long as the call."""
        return Watch(self, call)

    def took(self, seen: Observation, route: Route, whole: Whole) -> Whole:
        """A call was answered with what was there without waiting, by `route`: it is over, and has left what calls
        leave."""
        if seen.trace.span is not None:
            note_look(seen.trace.span, "hit", "memory")
        given = seen.took(route, whole)
        self.over(seen)
        return given

    def refused(self, call: Call, error: PolyrouteError) -> None:
        """A call that never came this far, since what it asks makes no sense, is one all the same."""
        seen = self._seen(call)
        seen.failed(error)
        seen.over()
        self._metrics.call_rejected(_FACES.get(call.entrance.protocol, ""), error.reason)
        self._tell(seen)

    def begun(self, call: Call) -> Observation:
        """A call has come in; to be followed by `over`."""
        seen = self._seen(call)  # first: samplers may be anybody's, and fail
        self._metrics.call_begun()
        return seen

    def over(self, seen: Observation) -> None:
        """A call is over."""
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

    def _seen(self, call: Call) -> Observation:
        entrance = call.entrance
        trace = self._begin(call.trace, entrance.method, lambda: entrance_attributes(entrance))
        return Observation(call, trace, self.clock, 0 if trace.span is None else self._content_chars)

    def _tell(self, seen: Observation) -> None:
        span = seen.trace.span
        if span is not None:
            describe(span, seen, self._content_chars)
            span.end()
        write_line(seen)


class Watch:
    """One call, from its arrival until it is over: a block around it, in the task that reads its answer.

    What is no error of ours ends it as `Internal`, and a call that is cut as `Draining`.
    """

    __slots__ = ("_clock", "_handed_at", "_intake", "_observed", "_seen", "_wait")

    def __init__(self, observed: Observed, call: Call) -> None:
        self._observed = observed
        self._intake, self._clock = observed.intake, observed.clock
        self._seen = observed.begun(call)

    @property
    def call(self) -> Call:
        """The call as it goes on from here, as a part of its own trace."""
        return self._seen.call.under(self._seen.trace)

    def __enter__(self) -> Watch:
        try:
            self._wait = self._intake.enter()
        except PolyrouteError as error:
            self._seen.failed(error)
            self._observed.over(self._seen)
            raise
        return self

    def saw(self, event: Event) -> Event:
        """An event of the answer, completed with what is known only here; the caller is about to get it."""
        self._wait.was_cut()
        event = self._seen.saw(event)
        self._handed_at = self._clock()
        return event

    def taken(self, event: Event) -> None:
        """The caller has come back for more, and waits again."""
        seen = self._seen
        seen.held_s += self._clock() - self._handed_at
        if isinstance(event, Whole):
            seen.complete = True  # who comes back has taken all of it
        self._wait.again()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        seen, told = self._seen, self._intake.leave(self._wait, error)
        try:
            if told is not None:
                told = self._failed(told)
        finally:
            self._observed.over(seen)
        if told is not error and told is not None:
            raise told from (error if isinstance(error, Exception) else None)

    def _failed(self, error: BaseException) -> BaseException:
        """Notes what the call ends with, and gives it back as the caller may see it."""
        seen = self._seen
        if isinstance(error, PolyrouteError):
            seen.failed(error)
        elif isinstance(error, Exception):
            log.exception("call.crashed", request_id=seen.call.request_id, trace_id=seen.trace.trace_id)
            error = Internal(seen.call.request_id)
            seen.failed(error)
        elif isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            seen.left()
        return error
