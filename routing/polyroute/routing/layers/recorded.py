"""A call that takes part in an experiment leaves one record, however it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from uuid import uuid4

from polyroute.core.call import Call
from polyroute.core.errors import Cancelled, Internal, ModelLoading, NoReplica, PolyrouteError
from polyroute.core.event import Attempt, CacheResult, Event, Finished, Route, Started, Timing, Token, Usage, Whole
from polyroute.routing.experiments.content import MOST_CONTENT, prompt_of, said, storable
from polyroute.routing.experiments.records import OK, CallRecord, Recorder
from polyroute.routing.experiments.shadow.pair import Side
from polyroute.routing.experiments.shadow.shadows import Copy, Shadows
from polyroute.routing.plan import Decision, Rule, shares
from polyroute.routing.registry import Snapshot

_NOT_ANSWERED: Final = (Route(), Timing(), Usage())
_FROM_THE_MODEL: Final = (CacheResult.MISS, CacheResult.BYPASS)


class Recorded:
    """Looks on while the router carries out a decision, tells the recorder what came of it, and sets its copies off.

    `clock` gives the time that `Call.arrived` is on, `now` Unix time; both in seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        shadows: Shadows | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.recorder = recorder
        self.shadows = shadows
        self.clock = clock
        self.now = now

    def begin(self, call: Call, decision: Decision, snapshot: Snapshot) -> Record:
        """What looks on at one call, for as long as the block lasts in which the decision is carried out."""
        return Record(self, call, decision, snapshot)


class Record:
    """Looks on at one call: to be told of each event before the caller has it (`saw`) and after that (`taken`)."""

    __slots__ = ("_begun", "_call", "_copies", "_decision", "_drawn", "_notes", "_of", "_pair_id", "_rule", "_snapshot")

    def __init__(self, of: Recorded, call: Call, decision: Decision, snapshot: Snapshot) -> None:
        self._of = of
        self._call = call
        self._decision = decision
        self._snapshot = snapshot
        self._rule = snapshot.rules[decision.requested]
        self._drawn = of.shadows is not None and bool(decision.copies)
        self._pair_id = uuid4().hex if self._drawn else ""
        self._notes = _Notes(call, decision, of.clock, keep_text=self._drawn or self._rule.record_content)
        self._copies: list[Copy] = []
        self._begun = False

    def __enter__(self) -> Record:
        return self

    def saw(self, event: Event) -> None:
        """The caller is about to get an event."""
        self._notes.saw(event)

    def taken(self, event: Event) -> None:
        """The caller has come back for more: it has the event, and nothing of what follows here is in its way."""
        if isinstance(event, Whole):
            self._notes.complete = True
        if self._of.shadows is not None and self._drawn and not self._begun:
            self._begun = True
            self._copies = self._of.shadows.begin(self._call, self._decision, self._snapshot, self._pair_id)

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        notes, of = self._notes, self._of
        if isinstance(error, PolyrouteError):
            notes.failed(error)
        elif isinstance(error, Exception):
            notes.failed(Internal(self._call.request_id))
        elif error is not None and not notes.complete:
            notes.failed(Cancelled("the caller left"))
        of.recorder.recorded(notes.record(self._rule, self._snapshot, self._pair_id, of.now()))
        if of.shadows is not None and self._drawn and not self._begun:
            of.shadows.missed(self._call, self._decision, self._pair_id, notes.cause)
        for copy in self._copies:
            notes.ended(copy)


class _Notes:
    """What is known of one call so far."""

    def __init__(self, call: Call, decision: Decision, clock: Callable[[], float], *, keep_text: bool) -> None:
        self._call = call
        self._decision = decision
        self._clock = clock
        self._text: list[str] | None = [] if keep_text else None
        self._kept = 0
        self._route, self._timing, self._usage = _NOT_ANSWERED
        self._first_token_s = 0.0
        self._finish_reason = ""
        self._outcome = OK
        self._attempts: tuple[Attempt, ...] = ()
        self._late = False
        self.complete = False

    def saw(self, event: Event) -> None:
        if isinstance(event, Token):
            if self._text is not None and self._kept < MOST_CONTENT:
                text = said(event)
                self._text.append(text)
                self._kept += len(text)
        elif isinstance(event, Started):
            self._route = event.route
            self._attempts = event.route.attempts
            self._first_token_s = self._clock() - self._call.arrived
        elif isinstance(event, Finished):
            self._ended(event)
            self.complete = True
        else:
            self.saw(event.started)
            if self._text is not None:
                for token in event.tokens:
                    self.saw(token)
            self._ended(event.finished)

    def _ended(self, event: Finished) -> None:
        self._timing, self._usage = event.timing, event.usage
        self._finish_reason = event.reason.name

    def failed(self, error: PolyrouteError) -> None:
        self._outcome = error.reason
        self._attempts = error.attempts or self._attempts
        self._late = self._call.deadline is not None and self._clock() >= self._call.deadline

    @property
    def cause(self) -> str:
        """Why there is no copy of a call that ended before one could set off."""
        return "caller_left" if self._outcome == Cancelled.reason else "caller_failed"

    def ended(self, copy: Copy) -> None:
        """The copy learns how its caller fared."""
        if self._outcome == Cancelled.reason:
            copy.give_up(self.cause)
        else:
            copy.caller_ended(self._side())

    def _side(self) -> Side:
        """What the caller got, with times of the model alone, where one model was asked and not the cache."""
        asked = [attempt for attempt in self._attempts if attempt.deployment == self._route.deployment]
        timed = self._route.cache in _FROM_THE_MODEL and len(self._attempts) == 1 and self.complete
        return Side(
            outcome=self._outcome,
            text="".join(self._text or ())[:MOST_CONTENT],
            finish_reason=self._finish_reason,
            completion_tokens=self._usage.completion_tokens,
            first_token_s=max(0.0, asked[0].duration_s - self._timing.queue_s) if timed and asked else None,
            total_s=self._timing.backend_s if timed else None,
        )

    def record(self, rule: Rule, snapshot: Snapshot, pair_id: str, at: float) -> CallRecord:
        decision, route = self._decision, self._route
        own = snapshot.deployments[decision.own_step.deployment]
        itself = route.deployment == own.id
        content = rule.record_content
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
            prompt=storable(prompt_of(self._call.request)) if content else "",
            answer=storable("".join(self._text or ())) if content else "",
            pair_id=pair_id,
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
