"""Carries out a plan: its attempts in turn, until one begins to answer."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from msgspec.structs import replace

from polyroute.core.attributes import DEPLOYMENT
from polyroute.core.call import Call
from polyroute.core.errors import DeadlineExceeded, ModelLoading, PolyrouteError, clip
from polyroute.core.event import Attempt, CacheResult, Event, Finished, Route, Started, Whole
from polyroute.core.trace import Span
from polyroute.routing.layers.recorded import Recorded
from polyroute.routing.metrics import Metrics
from polyroute.routing.plan import Decision, Step
from polyroute.routing.registry import Snapshot
from polyroute.routing.streams import generator

_QUOTED_CHARS = 300
_WITHOUT_ATTEMPT = (CacheResult.HIT, CacheResult.COALESCED)


class Router:
    """A service over all deployments. `snapshot` gives the registry in force; each call keeps the one it began with.

    `recorded` looks on at calls that take part in an experiment.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        metrics: Metrics,
        *,
        recorded: Recorded | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshot = snapshot
        self._metrics = metrics
        self._recorded = recorded
        self._clock = clock

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        snapshot = self._snapshot()
        decision = snapshot.decide(call)
        with snapshot.occupied((*(s.deployment for s in decision.steps), *(s.deployment for s in decision.copies))):
            events = self._carry_out(call, snapshot, decision)
            if self._recorded is not None and (decision.variant or decision.copies):
                events = self._recorded(events, call, decision, snapshot)
            async with aclosing(events):
                async for event in events:
                    yield event

    def at_hand(self, call: Call) -> Whole | None:
        """The whole answer, where it is stored in memory and the call's name leaves nothing to decide; never waits."""
        snapshot, request = self._snapshot(), call.request
        decision = None if request.routing.variant else snapshot.foregone.get(request.model)
        begun = self._clock()
        if decision is None or (call.deadline is not None and begun >= call.deadline):
            return None
        (step,) = decision.steps
        whole = snapshot.deployments[step.deployment].cached.at_hand(call)
        if whole is None:
            return None
        started = self._begun(whole.started, call, decision, step, (), self._clock() - begun)
        return Whole(started, whole.tokens, whole.finished, whole.forms)

    async def _carry_out(self, call: Call, snapshot: Snapshot, decision: Decision) -> AsyncGenerator[Event, None]:
        failed: tuple[Attempt, ...] = ()
        lost_s = 0.0
        for step in decision.steps:
            begun = self._clock()
            if call.deadline is not None and begun >= call.deadline:
                late = DeadlineExceeded("the caller's deadline passed before an answer began")
                raise late.after(failed, _with_history(late.message, failed))
            answering = False
            try:
                attempt = call if step.wait_for_load else replace(call, wait_for_load=False)
                async with aclosing(generator(snapshot.deployments[step.deployment].service(attempt))) as events:
                    async for event in events:
                        if isinstance(event, Started):
                            answering = True
                            event = self._begun(event, call, decision, step, failed, self._clock() - begun)
                        elif isinstance(event, Whole):
                            answering = True
                            started = self._begun(event.started, call, decision, step, failed, self._clock() - begun)
                            event = Whole(started, event.tokens, _with_lost_time(event.finished, lost_s), event.forms)
                        elif isinstance(event, Finished):
                            event = _with_lost_time(event, lost_s)
                        yield event
                return
            except PolyrouteError as error:
                if answering:
                    raise
                duration_s = self._clock() - begun
                lost_s += duration_s
                attempts = (*failed, *_failures(step, error, duration_s))
                if call.trace.span is not None and not error.attempts:
                    _keep(call.trace.span, step, error, duration_s)
                if not error.shared:
                    self._count(step, attempts[len(failed) :])
                if not error.try_next or step is decision.steps[-1]:
                    raise error.after(attempts, _with_history(error.message, attempts[:-1])) from error
                self._metrics.fell_back(step.deployment, error.reason)
                failed = attempts

    def _begun(
        self, started: Started, call: Call, decision: Decision, step: Step, failed: tuple[Attempt, ...], took_s: float
    ) -> Started:
        """Counts the attempt that has begun to answer, and completes its route."""
        route = started.route
        self._count(step, route.attempts)
        if route.cache not in _WITHOUT_ATTEMPT:
            self._metrics.attempted(step.deployment, "ok")
        return Started(_complete(route, call, decision, step, failed, took_s))

    def _count(self, step: Step, failed: tuple[Attempt, ...]) -> None:
        for attempt in failed:
            self._metrics.attempted(step.deployment, attempt.reason)


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


def _complete(
    route: Route, call: Call, decision: Decision, step: Step, failed: tuple[Attempt, ...], duration_s: float
) -> Route:
    reasons = decision.reasons
    if failed:
        reasons += tuple(_why_not(attempt) for attempt in failed)
        reasons += (f"`{step.deployment}` answered as fallback",)
    here: tuple[Attempt, ...] = ()
    answered_s = duration_s
    if route.attempts:
        here = _of(step, route.attempts)
        answered_s = max(0.0, duration_s - sum(attempt.duration_s for attempt in here))
    return Route(  # in full, for it is done for every call: `replace` takes twice the time
        requested=decision.requested,
        model=route.model,
        version=route.version,
        deployment=step.deployment,
        replica=route.replica,
        variant=decision.variant,
        cache=route.cache,
        attempts=(*failed, *here, Attempt(step.deployment, route.replica, step.variant, duration_s=answered_s)),
        reasons=(*reasons, *route.reasons),
        upstream=route.upstream,
        trace_id=call.trace.trace_id,
        sticky_by=decision.sticky_by,
        hash_point=decision.hash_point,
        probability=decision.probability,
        cache_age_s=route.cache_age_s,
        cache_key=route.cache_key,
    )


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
