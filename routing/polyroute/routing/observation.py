"""What is known of one call so far, from its arrival until it is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from polyroute.core.call import Call
from polyroute.core.errors import Cancelled, DeadlineExceeded, PolyrouteError
from polyroute.core.event import Event, Finished, FinishReason, Route, Started, Timing, Token, Usage, Whole
from polyroute.core.trace import Trace

OK: Final = "ok"
_NO_ROUTE: Final = Route()
_NO_TIMING: Final = Timing()
_NO_USAGE: Final = Usage()
_EARLY_S: Final = 0.25
_EARLY_SHARE: Final = 0.2


class Observation(msgspec.Struct, eq=False, gc=False):
    """One call: its route, times and tokens, and its outcome, which is `ok` or an error's reason.

    `trace` is where the call stands in its own trace, which may be another than the one that it came with. `clock` is
    that of `time.monotonic`. It keeps the beginning of the answer, `most` characters of it.
    """

    call: Call
    trace: Trace
    clock: Callable[[], float]
    most: int = 0
    route: Route = _NO_ROUTE
    timing: Timing = _NO_TIMING
    usage: Usage = _NO_USAGE
    outcome: str = OK
    error: str = ""
    failure: type[PolyrouteError] | None = None
    finish_reason: FinishReason = FinishReason.UNSPECIFIED
    held_s: float = 0.0
    """Seconds for which the answer waited for its reader."""
    complete: bool = False
    """Whether the caller has the end of the answer."""
    answer: str = ""
    tokens_estimated: bool = False
    """Whether the tokens of the answer were not told, and are about as many."""
    pieces: int = 0
    """Pieces of text so far, of an answer whose tokens are not told before its end."""
    first_token_s: float = 0.0
    """Seconds from the call's arrival until its answer began."""

    def saw(self, event: Event) -> Event:
        """Notes an event, and completes it with what only the outermost layer knows."""
        if isinstance(event, Token):
            self._token(event)
            return event
        if isinstance(event, Started):
            return self._started(event)
        if isinstance(event, Finished):
            self.complete = True
            return self._finished(event, self.clock() - self.call.arrived)
        return self._whole(self._routed(event.started), event)

    def took(self, route: Route, whole: Whole) -> Whole:
        """Notes an answer that its caller has at once, and completes it: `route` is the call's, with its trace."""
        self.route, self.complete = route, True
        return self._whole(Started(route), whole)

    def _whole(self, started: Started, event: Whole) -> Whole:
        """A whole answer begins and ends at once."""
        if self.most:
            for token in event.tokens:
                self._token(token)
        self.first_token_s = total_s = self.clock() - self.call.arrived
        return Whole(started, event.tokens, self._finished(event.finished, total_s), event.forms)

    def _token(self, event: Token) -> None:
        if event.usage is not None:
            self.usage = event.usage
        elif event.text:
            self.pieces += len(event.pieces) or 1
        if self.most and self.most > len(self.answer):
            self.answer += event.text[: self.most - len(self.answer)]

    def _started(self, event: Started) -> Started:
        self.first_token_s = self.clock() - self.call.arrived
        return self._routed(event)

    def _routed(self, event: Started) -> Started:
        self.route = event.route
        if event.route.trace_id != self.trace.trace_id:
            self.route = replace(event.route, trace_id=self.trace.trace_id)
            return Started(self.route)
        return event

    def _finished(self, event: Finished, total_s: float) -> Finished:
        queue_s, backend_s = event.timing.queue_s, event.timing.backend_s
        overhead_s = max(0.0, total_s - (queue_s + backend_s + self.held_s))
        self.timing = Timing(queue_s, backend_s, self.first_token_s, total_s, overhead_s)
        self.usage = event.usage
        self.finish_reason = event.reason
        return Finished(event.reason, event.usage, self.timing, event.matched_stop, event.seed)

    def failed(self, error: PolyrouteError) -> None:
        """The call ends with an error."""
        self.outcome, self.error, self.failure = error.reason, error.own_message, type(error)
        if error.attempts:
            last = error.attempts[-1]
            self.route = replace(
                self.route,
                deployment=last.deployment,
                replica=last.replica,
                variant=last.variant,
                attempts=error.attempts,
            )

    def left(self) -> None:
        """The stream was closed before its end: the caller left, or its deadline has passed, by which gRPC ends it.

        A caller's own clock began before the call was here, so it leaves some time before our clock says that it is
        late: who leaves in the last quarter of a second, or the last fifth of a shorter time, had no more time.
        """
        if self.complete:  # a caller that has the end of the answer did not leave early
            return
        deadline, arrived = self.call.deadline, self.call.arrived
        late = False
        if deadline is not None:
            late = self.clock() >= deadline - min(_EARLY_S, _EARLY_SHARE * (deadline - arrived))
        self.failure = DeadlineExceeded if late else Cancelled
        self.outcome = self.failure.reason
        self.error = "the caller's deadline passed" if late else ""

    def over(self) -> None:
        """Completes the times and the tokens of a call that did not come to its end.

        Where the backend tells of tokens at the end only, each piece of text is taken for one, as peers send them.
        """
        if not self.complete:
            total_s = self.clock() - self.call.arrived
            self.timing = Timing(first_token_s=self.first_token_s, total_s=total_s)
            if not self.route.requested:
                self.route = replace(self.route, requested=self.call.request.model)
            if self.pieces:
                self.tokens_estimated = True
                self.usage = replace(self.usage, completion_tokens=self.pieces)
