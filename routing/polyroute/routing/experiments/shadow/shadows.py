"""Makes the copies of calls, beside them, and compares each with what its caller got."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

import structlog
from msgspec import structs

from polyroute.core.attributes import DEPLOYMENT, OUTCOME, PAIR_ID, REQUEST_ID
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.errors import Internal, PolyrouteError
from polyroute.core.event import Finished, Started, Token
from polyroute.core.trace import Trace, new_span_id, new_trace_id
from polyroute.routing.experiments.content import MOST_CONTENT, prompt_of, said, storable
from polyroute.routing.experiments.records import OK
from polyroute.routing.experiments.shadow.lane import Lane
from polyroute.routing.experiments.shadow.pair import Pair, Side, compared
from polyroute.routing.layers.bounded import Bounded
from polyroute.routing.metrics import Metrics
from polyroute.routing.occupancy import Occupancy
from polyroute.routing.plan import Decision, Shadow
from polyroute.routing.registry import Deployment, Snapshot
from polyroute.routing.streams import generator

_LONG: Final = 8_192
"""Characters from which on texts are compared off the event loop."""

log = structlog.get_logger(__name__)


class PairRecorder(Protocol):
    """Is told of each pair. Must neither wait nor raise."""

    def paired(self, pair: Pair) -> None:
        """A call and its copy are both over, or there is no copy of it."""
        ...


class Copy:
    """The copy of one call for one shadow, while it is made."""

    def __init__(self, pair: Pair, *, keep_content: bool) -> None:
        self.pair = pair
        self.keep_content = keep_content
        self.caller: asyncio.Future[Side] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.cause = "stopped"

    def caller_ended(self, side: Side) -> None:
        """The caller has its answer, or its error."""
        if not self.caller.done():
            self.caller.set_result(side)

    def give_up(self, cause: str) -> None:
        """There is nothing to compare with any more: the copy ends, and `cause` says why."""
        self.cause = cause
        if self.task is not None:
            self.task.cancel()


class Shadows:
    """The copies of all routes. They share nothing with callers' calls that could hurt those.

    Each shadow has permits, a bounded queue, a deadline and a breaker of its own; a copy is never tried again, asks no
    cache, takes nothing of its deployment's retry budget, and its failures open no breaker that callers' calls go by.
    It is made only of models that are loaded, and while their own callers leave room.
    """

    def __init__(
        self,
        recorder: PairRecorder,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._recorder = recorder
        self._metrics = metrics
        self._clock = clock
        self._now = now
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, call: Call, decision: Decision, snapshot: Snapshot, pair_id: str) -> list[Copy]:
        """Sets the drawn copies of a call off, whose own answer has begun; waits for nothing."""
        copies = []
        for shadow in decision.copies:
            pair = self._pair(call, decision, shadow, pair_id)
            lane = self._lane(decision.requested, shadow)
            refusal = lane.admit(self._clock())
            if refusal:
                self._keep(replace(pair, missing=refusal))
                continue
            copy = Copy(pair, keep_content=snapshot.rules[decision.requested].record_content)
            deployment = snapshot.deployments[shadow.deployment]
            deployment.occupancy.enter()  # so that a reload does not stop it meanwhile
            copy.task = asyncio.create_task(self._run(copy, call, lane, deployment), name="shadow")
            self._tasks.add(copy.task)
            copy.task.add_done_callback(partial(self._over, copy, lane, deployment.occupancy))
            copies.append(copy)
        return copies

    def missed(self, call: Call, decision: Decision, pair_id: str, cause: str) -> None:
        """A call whose copies were drawn has ended before they could set off."""
        for shadow in decision.copies:
            self._keep(replace(self._pair(call, decision, shadow, pair_id), missing=cause))

    async def close(self) -> None:
        """Ends the copies that are being made."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pair(self, call: Call, decision: Decision, shadow: Shadow, pair_id: str) -> Pair:
        return Pair(self._now(), pair_id, call.request_id, decision.requested, shadow.deployment)

    def _lane(self, route: str, shadow: Shadow) -> Lane:
        lane = self._lanes.get((route, shadow.deployment))
        if lane is None or lane.shadow != shadow:
            lane = self._lanes[route, shadow.deployment] = Lane(shadow)
        return lane

    async def _run(self, copy: Copy, call: Call, lane: Lane, deployment: Deployment) -> None:
        pair = replace(copy.pair, version=deployment.backend.facts().version)
        try:
            side = await self._side(copy, call, lane, deployment)
            if isinstance(side, str):
                self._keep(replace(pair, missing=side))
                return
            caller = await copy.caller
            figures = await _compared(caller, side)
            self._keep(
                replace(
                    pair,
                    at=self._now(),
                    caller_outcome=caller.outcome,
                    copy_outcome=side.outcome,
                    **figures,
                    **(_content(call, caller, side) if copy.keep_content else {}),
                )
            )
        except Exception:  # our bug, and no caller's
            log.exception("shadow.crashed", request_id=call.request_id, deployment=deployment.id)
            self._keep(replace(pair, missing="crashed"))

    def _over(self, copy: Copy, lane: Lane, occupancy: Occupancy, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        lane.left()
        occupancy.leave()
        if task.cancelled():
            self._keep(replace(copy.pair, missing=copy.cause))

    async def _side(self, copy: Copy, call: Call, lane: Lane, deployment: Deployment) -> Side | str:
        """The copy's side; or why there is none, where it could not be made."""
        until = self._clock() + lane.shadow.timeout_s
        try:
            async with asyncio.timeout(lane.shadow.timeout_s):
                await lane.enter()
        except TimeoutError:
            return "queue_timeout"
        try:
            if deployment.backend.facts().state is not ModelState.WARM:
                return "not_loaded"
            if not self._room(deployment):
                return "busy"
            side = await self._answer(deployment, self._copied(copy.pair, call, until))
            lane.ended(side.outcome == OK, self._clock())
            return side
        finally:
            lane.leave()

    def _room(self, deployment: Deployment) -> bool:
        """Whether the deployment's own callers leave a place free, beside the copies that have one."""
        copies = sum(lane.running for (_, id), lane in self._lanes.items() if id == deployment.id)
        permits = deployment.permits
        return not permits.queued and permits.in_flight + copies <= permits.max_concurrency

    def _copied(self, pair: Pair, call: Call, until: float) -> Call:
        """The call as the copy makes it: with its own deadline, in a trace of its own that links to the caller's."""
        trace = Trace(new_trace_id(), new_span_id())
        if call.trace.span is not None:
            attributes = {REQUEST_ID: pair.request_id, PAIR_ID: pair.pair_id, DEPLOYMENT: pair.deployment}
            trace = call.trace.span.linked("shadow", "internal", attributes)
        return structs.replace(call, arrived=self._clock(), deadline=until, trace=trace, wait_for_load=False, copy=True)

    async def _answer(self, deployment: Deployment, call: Call) -> Side:
        """The answer of the copy, whole, as a caller's stream would have it."""
        begun = self._clock()
        side = Side()
        first_s: float | None = None
        text: list[str] = []
        try:
            service = Bounded(deployment.backend.stream, deployment.id, timeout_s=deployment.config.timeout)
            async with aclosing(generator(service(call))) as events:
                async for event in events:
                    if isinstance(event, Started):
                        first_s = self._clock() - begun
                    elif isinstance(event, Token):
                        text.append(said(event))
                    elif isinstance(event, Finished):
                        side = replace(
                            side, finish_reason=event.reason.name, completion_tokens=event.usage.completion_tokens
                        )
        except PolyrouteError as error:
            side = replace(side, outcome=error.reason)
        except Exception:  # our bug, and no caller's
            log.exception("shadow.crashed", request_id=call.request_id, deployment=deployment.id)
            side = replace(side, outcome=Internal.reason)
        finally:
            self._end_span(call, side.outcome)
        total_s = self._clock() - begun
        return replace(side, text="".join(text)[:MOST_CONTENT], first_token_s=first_s, total_s=total_s)

    def _end_span(self, call: Call, outcome: str) -> None:
        if call.trace.span is not None:
            call.trace.span.attributes[OUTCOME] = outcome
            call.trace.span.end()

    def _keep(self, pair: Pair) -> None:
        self._metrics.shadowed(pair.route, pair.deployment, pair.result, pair.edit_distance)
        self._recorder.paired(pair)


def _content(call: Call, caller: Side, copy: Side) -> dict[str, Any]:
    texts = {"prompt": prompt_of(call.request), "caller_text": caller.text, "copy_text": copy.text}
    return {name: storable(text) for name, text in texts.items()}


async def _compared(caller: Side, copy: Side) -> dict[str, Any]:
    if max(len(caller.text), len(copy.text)) > _LONG:
        return await asyncio.to_thread(compared, caller, copy)
    return compared(caller, copy)
