"""What one call has gone through in the router until now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from polyroute.core.attributes import DEPLOYMENT
from polyroute.core.call import Call
from polyroute.core.errors import DeadlineExceeded, ModelLoading, PolyrouteError, clip
from polyroute.core.event import Attempt, CacheResult, Event, Finished, Route, Started, Whole
from polyroute.core.trace import Span
from polyroute.routing.metrics import Metrics
from polyroute.routing.plan import Decision, Step

_QUOTED_CHARS: Final = 300
_WITHOUT_ATTEMPT: Final = (CacheResult.HIT, CacheResult.COALESCED)


class Course:
    """The steps of a call's decision that were tried, one after the other, and what became of them.

    `clock` is that of `time.monotonic`.
    """

    __slots__ = ("_begun", "_call", "_clock", "_decision", "_failed", "_lost_s", "_metrics", "_step", "answering")

    def __init__(self, call: Call, decision: Decision, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._call = call
        self._decision = decision
        self._metrics = metrics
        self._clock = clock
        self._failed: tuple[Attempt, ...] = ()
        self._lost_s = 0.0
        self.answering = False
        """Whether the step has begun to answer: no other may follow."""

    def begin(self, step: Step) -> Call:
        """The call as it goes to the next step; raises `DeadlineExceeded` where there is no time left for one."""
        call = self._call
        self._step, self.answering, self._begun = step, False, self._clock()
        if call.deadline is not None and self._begun >= call.deadline:
            late = DeadlineExceeded("the caller's deadline passed before an answer began")
            raise late.after(self._failed, _with_history(late.message, self._failed))
        return call if step.wait_for_load else replace(call, wait_for_load=False)

    def saw(self, event: Event) -> Event:
        """An event of the step that is no token, completed with what only the router knows."""
        if isinstance(event, Started):
            return self._started(event)
        if isinstance(event, Finished):
            return _with_lost_time(event, self._lost_s)
        if isinstance(event, Whole):
            started = self._started(event.started)
            return Whole(started, event.tokens, _with_lost_time(event.finished, self._lost_s), event.forms)
        return event

    def _started(self, started: Started) -> Started:
        self.answering = True
        took_s = self._clock() - self._begun
        trace_id = self._call.trace.trace_id
        return begun(started, trace_id, self._decision, self._step, self._failed, took_s, self._metrics)

    def goes_on(self, error: PolyrouteError) -> bool:
        """Whether the next step follows this one, which has failed before it began to answer."""
        step, duration_s = self._step, self._clock() - self._begun
        self._lost_s += duration_s
        attempts = _failures(step, error, duration_s)
        self._failed += attempts
        if self._call.trace.span is not None and not error.attempts:
            _keep(self._call.trace.span, step, error, duration_s)
        if not error.shared:
            _count(self._metrics, step, attempts)
        if not error.try_next or step is self._decision.steps[-1]:
            return False
        self._metrics.fell_back(step.deployment, error.reason)
        return True

    def ended(self, error: PolyrouteError) -> PolyrouteError:
        """The error of the last step that was tried, as the call's: with all attempts in it."""
        return error.after(self._failed, _with_history(error.message, self._failed[:-1]))


def begun(
    started: Started,
    trace_id: str,
    decision: Decision,
    step: Step,
    failed: tuple[Attempt, ...],
    took_s: float,
    metrics: Metrics,
) -> Started:
    """Counts the attempt that has begun to answer, `took_s` seconds after it was made, and completes its route."""
    route = started.route
    _count(metrics, step, route.attempts)
    if route.cache not in _WITHOUT_ATTEMPT:
        metrics.attempted(step.deployment, "ok")
    return Started(completed(route, trace_id, decision, step, failed, took_s))


def completed(
    route: Route, trace_id: str, decision: Decision, step: Step, failed: tuple[Attempt, ...], duration_s: float
) -> Route:
    """The route of a call that `step` answers, `duration_s` seconds after it was made, after attempts that `failed`."""
    reasons = decision.reasons
    if failed:
        reasons += tuple(_why_not(attempt) for attempt in failed)
        reasons += (f"`{step.deployment}` answered as fallback",)
    here: tuple[Attempt, ...] = ()
    answered_s = duration_s
    if route.attempts:
        here = _of(step, route.attempts)
        answered_s = max(0.0, duration_s - sum(attempt.duration_s for attempt in here))
    return Route(  # sixteen arguments by name would be put into a map first, which takes most of the time
        decision.requested,
        route.model,
        version=route.version,
        deployment=step.deployment,
        replica=route.replica,
        variant=decision.variant,
        cache=route.cache,
        attempts=(*failed, *here, Attempt(step.deployment, route.replica, step.variant, duration_s=answered_s)),
        reasons=(*reasons, *route.reasons),
        upstream=route.upstream,
        trace_id=trace_id,
        sticky_by=decision.sticky_by,
        hash_point=decision.hash_point,
        probability=decision.probability,
        cache_age_s=route.cache_age_s,
        cache_key=route.cache_key,
    )


def _count(metrics: Metrics, step: Step, failed: tuple[Attempt, ...]) -> None:
    for attempt in failed:
        metrics.attempted(step.deployment, attempt.reason)


def _failures(step: Step, error: PolyrouteError, duration_s: float) -> tuple[Attempt, ...]:
    """The attempts that a step came to: those at its replicas, or the step itself where it came to none."""
    if error.attempts:
        return _of(step, error.attempts)
    message = clip(error.message, _QUOTED_CHARS)
    return (Attempt(step.deployment, "", step.variant, error.reason, message, duration_s),)


def _keep(span: Span, step: Step, error: PolyrouteError, duration_s: float) -> None:
    """The span of a step that came to no replica: those that do are kept where replicas are attempted."""
    begun_ns = time.time_ns() - int(duration_s * 1e9)
    attempt = span.child(f"attempt {step.deployment}", "internal", {DEPLOYMENT: step.deployment}, begun_ns=begun_ns)
    attempt.failed(error.reason, error.own_message)
    attempt.end()


def _of(step: Step, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    return tuple(replace(attempt, deployment=step.deployment, variant=step.variant) for attempt in attempts)


def _why_not(attempt: Attempt) -> str:
    if attempt.reason == ModelLoading.reason:
        return f"`{attempt.deployment}` is not loaded yet, and is being loaded meanwhile"
    return f"`{attempt.replica or attempt.deployment}` failed: {attempt.reason}"


def _with_lost_time(finished: Finished, lost_s: float) -> Finished:
    """Time that went into steps which failed was spent waiting for models, not in the router."""
    if not lost_s:
        return finished
    timing = finished.timing
    return replace(finished, timing=replace(timing, backend_s=timing.backend_s + lost_s))


def _with_history(message: str, failed: tuple[Attempt, ...]) -> str:
    if not failed:
        return message
    tried = "; ".join(f"`{attempt.replica or attempt.deployment}` {attempt.reason}" for attempt in failed)
    return f"{message} (tried before: {tried})"
