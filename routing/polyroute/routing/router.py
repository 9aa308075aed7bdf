"""Carries out a plan: its attempts in turn, until one begins to answer."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

from polyroute.core.call import Call
from polyroute.core.errors import DeadlineExceeded, PolyrouteError, clip
from polyroute.core.event import Attempt, Event, Finished, Route, Started
from polyroute.routing.metrics import Metrics
from polyroute.routing.plan import Decision, Step, decide
from polyroute.routing.registry import Snapshot
from polyroute.routing.streams import generator

_QUOTED_CHARS = 300


class Router:
    """A service over all deployments. `snapshot` gives the registry in force; each call keeps the one it began with."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], metrics: Metrics, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._snapshot = snapshot
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        snapshot = self._snapshot()
        decision = decide(snapshot.resolve(call.request.model), call.request, call.request_id, snapshot.rules)
        with snapshot.occupied(step.deployment for step in decision.steps):
            async with aclosing(self._carry_out(call, snapshot, decision)) as events:
                async for event in events:
                    yield event

    async def _carry_out(self, call: Call, snapshot: Snapshot, decision: Decision) -> AsyncGenerator[Event, None]:
        failed: tuple[Attempt, ...] = ()
        for step in decision.steps:
            begun = self._clock()
            if call.deadline is not None and begun >= call.deadline:
                late = DeadlineExceeded("the caller's deadline passed before an answer began")
                raise late.after(failed, _with_history(late.message, failed))
            answering = False
            try:
                async with aclosing(generator(snapshot.deployments[step.deployment].service(call))) as events:
                    async for event in events:
                        if isinstance(event, Started):
                            answering = True
                            event = Started(_complete(event.route, decision, step, failed, self._clock() - begun))
                        elif isinstance(event, Finished) and failed:
                            event = _with_lost_time(event, failed)
                        yield event
                return
            except PolyrouteError as error:
                if answering:
                    raise
                self._metrics.attempt_failed(step.deployment, error.reason)
                attempts = (*failed, _failure(step, error, self._clock() - begun))
                if not error.try_next or step is decision.steps[-1]:
                    raise error.after(attempts, _with_history(error.message, failed)) from error
                failed = attempts


def _failure(step: Step, error: PolyrouteError, duration_s: float) -> Attempt:
    return Attempt(
        deployment=step.deployment,
        variant=step.variant,
        reason=error.reason,
        message=clip(error.message, _QUOTED_CHARS),
        duration_s=duration_s,
    )


def _complete(route: Route, decision: Decision, step: Step, failed: tuple[Attempt, ...], duration_s: float) -> Route:
    reasons = decision.reasons
    if failed:
        reasons += tuple(f"`{attempt.deployment}` failed: {attempt.reason}" for attempt in failed)
        reasons += (f"`{step.deployment}` answered as fallback",)
    return replace(
        route,
        requested=decision.requested,
        deployment=step.deployment,
        variant=decision.variant,
        attempts=(*failed, Attempt(step.deployment, route.replica, step.variant, duration_s=duration_s)),
        reasons=(*reasons, *route.reasons),
        sticky_by=decision.sticky_by,
        hash_point=decision.hash_point,
        probability=decision.probability,
    )


def _with_lost_time(finished: Finished, failed: tuple[Attempt, ...]) -> Finished:
    """Time that went into attempts which failed was spent waiting for models, not in the router."""
    timing = finished.timing
    lost_s = sum(attempt.duration_s for attempt in failed)
    return replace(finished, timing=replace(timing, backend_s=timing.backend_s + lost_s))


def _with_history(message: str, failed: tuple[Attempt, ...]) -> str:
    if not failed:
        return message
    tried = "; ".join(f"`{attempt.deployment}` {attempt.reason}" for attempt in failed)
    return f"{message} (tried before: {tried})"
