"""Carries out a plan: its attempts in turn, until one begins to answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from polyroute.core.call import Call
from polyroute.core.errors import PolyrouteError
from polyroute.core.event import Event, Token, Whole
from polyroute.routing.course import Course, completed
from polyroute.routing.layers.observed import Observed
from polyroute.routing.layers.recorded import Record, Recorded
from polyroute.routing.metrics import Metrics
from polyroute.routing.plan import Decision
from polyroute.routing.registry import Snapshot
from polyroute.routing.streams import generator

_UNRECORDED: Final = nullcontext()


class Router:
    """A service over all deployments. `snapshot` gives the registry in force; each call keeps the one it began with.

    `observed` looks on at every call, `recorded` at those that take part in an experiment.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        metrics: Metrics,
        observed: Observed,
        *,
        recorded: Recorded | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshot = snapshot
        self._metrics = metrics
        self._observed = observed
        self._recorded = recorded
        self._clock = clock

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        with self._observed.watch(call) as watch:
            call, snapshot = watch.call, self._snapshot()
            decision = snapshot.decide(call)
            course = Course(call, decision, self._metrics, self._clock)
            with snapshot.occupied(decision.places), self._record(call, decision, snapshot) as record:
                for step in decision.steps:
                    events = generator(snapshot.deployments[step.deployment].service(course.begin(step)))
                    try:
                        async for event in events:
                            if not isinstance(event, Token):
                                event = course.saw(event)
                            if record is not None:
                                record.saw(event)
                            event = watch.saw(event)
                            yield event
                            watch.taken(event)
                            if record is not None:
                                record.taken(event)
                        return
                    except PolyrouteError as error:
                        if course.answering:
                            raise
                        if not course.goes_on(error):
                            raise course.ended(error) from error
                    finally:
                        await events.aclose()

    def at_hand(self, call: Call) -> Whole | None:
        """The whole answer, where it is stored in memory and the call's name leaves nothing to decide; never waits.

        Then the call is over, and has left what it leaves. None is no refusal, and nothing is told of it.
        """
        snapshot, request, asked = self._snapshot(), call.request, self._clock()
        if self._observed.intake.closed or request.routing.variant:
            return None
        decision = snapshot.foregone.get(request.model)
        if decision is None or (call.deadline is not None and asked >= call.deadline):
            return None
        (step,) = decision.steps
        whole = snapshot.deployments[step.deployment].cached.at_hand(call)
        if whole is None:
            return None
        seen, took_s = self._observed.begun(call), self._clock() - asked
        route = completed(whole.started.route, seen.trace.trace_id, decision, step, (), took_s)  # a hit is no attempt
        return self._observed.took(seen, route, whole)

    def _record(self, call: Call, decision: Decision, snapshot: Snapshot) -> AbstractContextManager[Record | None]:
        """What looks on at the call; at one that takes part in no experiment, nothing."""
        if self._recorded is None or not (decision.variant or decision.copies):
            return _UNRECORDED
        return self._recorded.begin(call, decision, snapshot)
