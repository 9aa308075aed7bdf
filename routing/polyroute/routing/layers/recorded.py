"""A call that takes part in an experiment leaves one record, however it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import msgspec

from polyroute.core.call import Call
from polyroute.core.errors import Cancelled, Internal, ModelLoading, NoReplica, PolyrouteError
from polyroute.core.event import Attempt, Event, Finished, Route, Started, Timing, Token, Usage
from polyroute.core.request import Request
from polyroute.routing.experiments.records import OK, CallRecord, Recorder
from polyroute.routing.plan import Decision, Rule, shares
from polyroute.routing.registry import Snapshot

MOST_CONTENT: Final = 65_536
"""Characters that a record keeps of a prompt, and of an answer, where its route records content."""


class Recorded:
    """Looks on while the router carries out a decision, and tells the recorder what came of it.

    `clock` gives the time that `Call.arrived` is on, `now` Unix time; both in seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._now = now

    async def __call__(
        self, events: AsyncGenerator[Event, None], call: Call, decision: Decision, snapshot: Snapshot
    ) -> AsyncGenerator[Event, None]:
        """`events`, which carry out the decision for the call, unchanged."""
        rule = snapshot.rules[decision.requested]
        notes = _Notes(call, decision, self._clock, keep_text=rule.record_content)
        try:
            async with aclosing(events):
                async for event in events:
                    notes.saw(event)
                    yield event
        except PolyrouteError as error:
            notes.failed(error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if not notes.complete:
                notes.failed(Cancelled("the caller left"))
            raise
        except Exception:
            notes.failed(Internal(call.request_id))
            raise
        finally:
            self._recorder.recorded(notes.record(rule, snapshot, self._now()))


class _Notes:
    """What is known of one call so far."""

    def __init__(self, call: Call, decision: Decision, clock: Callable[[], float], *, keep_text: bool) -> None:
        self._call = call
        self._decision = decision
        self._clock = clock
        self._text: list[str] | None = [] if keep_text else None
        self._kept = 0
        self._route = Route()
        self._timing = Timing()
        self._usage = Usage()
        self._first_token_s = 0.0
        self._finish_reason = ""
        self._outcome = OK
        self._attempts: tuple[Attempt, ...] = ()
        self._late = False
        self.complete = False

    def saw(self, event: Event) -> None:
        if isinstance(event, Token):
            if self._text is not None and self._kept < MOST_CONTENT:
                self._text.append(event.text)
                self._kept += len(event.text)
        elif isinstance(event, Started):
            self._route = event.route
            self._attempts = event.route.attempts
            self._first_token_s = self._clock() - self._call.arrived
        else:
            self._ended(event)

    def _ended(self, event: Finished) -> None:
        self._timing, self._usage = event.timing, event.usage
        self._finish_reason = event.reason.name
        self.complete = True

    def failed(self, error: PolyrouteError) -> None:
        self._outcome = error.reason
        self._attempts = error.attempts or self._attempts
        self._late = self._call.deadline is not None and self._clock() >= self._call.deadline

    def record(self, rule: Rule, snapshot: Snapshot, at: float) -> CallRecord:
        decision, route = self._decision, self._route
        own = snapshot.deployments[decision.own_step.deployment]
        itself = route.deployment == own.id
        content = self._text is not None
        return CallRecord(
            at=at,
            request_id=self._call.request_id,
            route=rule.id,
            variant=decision.variant,
            model=own.id,
            version=route.version if itself else own.backend.facts().version,
            answered_by=route.deployment,
            held_out=decision.held_out,
            shares=shares(rule.variants),
            sticky_by=decision.sticky_by,
            hash_point=decision.hash_point,
            probability=decision.probability,
            outcome=self._outcome,
            fault=self._fault(own.id, itself=itself),
            own_deadline=self._late,
            cache=route.cache.name,
            finish_reason=self._finish_reason,
            queue_s=self._timing.queue_s,
            first_token_s=self._first_token_s,
            total_s=self._clock() - self._call.arrived,
            prompt_tokens=self._usage.prompt_tokens,
            completion_tokens=self._usage.completion_tokens,
            prompt=prompt_of(self._call.request)[:MOST_CONTENT] if content else "",
            answer="".join(self._text or ())[:MOST_CONTENT],
        )

    def _fault(self, own: str, *, itself: bool) -> str:
        """Why the variant itself did not answer, whole; empty where it did."""
        if itself:
            return "" if self._outcome == OK else self._outcome
        failures = [attempt.reason for attempt in self._attempts if attempt.deployment == own and attempt.reason]
        if failures:
            # A model that is being loaded has not failed, and one without replicas may only be waiting for the load.
            return next((reason for reason in failures if reason != ModelLoading.reason), ModelLoading.reason)
        return NoReplica.reason if self._outcome == OK else self._outcome


def prompt_of(request: Request) -> str:
    """The input of a request as text: its prompt, or its messages in JSON."""
    if request.messages is None:
        return request.prompt or ""
    return msgspec.json.encode([{"role": m.role, "content": m.content} for m in request.messages]).decode()
