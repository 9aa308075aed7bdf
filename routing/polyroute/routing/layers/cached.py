"""An answer that is stored is replayed; one that is not is run, once for all equal calls, and may be stored."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

from msgspec.structs import replace

from polyroute.core.call import Call, Service
from polyroute.core.event import HIT, CacheResult, Event, Finished, Route, Started, Timing, Token, Whole
from polyroute.core.request import CacheMode
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.eligibility import Use
from polyroute.routing.cache.follower import Follower, RunFailed, own
from polyroute.routing.cache.freshness import FRESH, Freshness
from polyroute.routing.cache.look_event import note_look
from polyroute.routing.cache.looks import ABSENT, Look
from polyroute.routing.cache.outcome import is_own, is_refusal
from polyroute.routing.cache.parts import Part, Stored
from polyroute.routing.cache.question import Question
from polyroute.routing.cache.replay import paced
from polyroute.routing.cache.runs import GIVEN, Runs
from polyroute.routing.cache.shelf import Ledger, Shelf
from polyroute.routing.cache.terms import Found
from polyroute.routing.metrics import Metrics
from polyroute.routing.occupancy import Occupancy
from polyroute.routing.streams import generator

MOST_RUNS: Final = 3
"""How many runs may fail before a call that has followed them all gives up."""


class Cached:
    """Looks an answer up before the layers below, and stores a complete one after them.

    `occupancy` is the deployment's.
    """

    def __init__(
        self,
        inner: Service,
        shelf: Shelf,
        answers: Answers,
        metrics: Metrics,
        *,
        ledger: Ledger | None = None,
        occupancy: Occupancy | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = ledger or Ledger(shelf.model)
        self._inner = inner
        self._shelf = shelf
        self._answers = answers
        self._metrics = metrics
        self._runs = Runs(
            *(inner, shelf, answers, metrics), ledger=self.ledger, occupancy=occupancy or Occupancy(), wall=wall
        )

    def __call__(self, call: Call) -> AsyncIterator[Event]:
        sought = self._shelf.sought(call, self._answers.moment)
        use, key = sought.use, sought.key
        if key is None:
            return self._passing(call, use)
        asked = Question(call, use, sought.facts.version, key)
        found = self._answers.at_hand(key, self._runs.terms) if use.read else None
        if found is not None and (started := self._suiting(found, asked)) is not None:
            self._answers.given(self._shelf.model)
            return _replayed(found, started, call)
        shares = use.read and use.write and bool(self._shelf.config.coalesce)
        return self._run(asked, shares=shares, absent=found is None)

    def at_hand(self, call: Call) -> Whole | None:
        """The stored answer that the call would get, where it is in memory and comes at once; never waits.

        Nothing is noted on a span: whoever asks this may not have begun one.
        """
        terms = self._runs.terms
        if terms.memory is None:
            return None
        sought = self._shelf.sought(call, self._answers.moment)
        if sought.key is None or not sought.use.read or call.request.cache.original_pace:
            return None
        found = self._answers.at_hand(sought.key, terms)
        if found is None:
            return None
        started = self._suiting(found, Question(call, sought.use, sought.facts.version, sought.key))
        if started is None:
            return None
        self._answers.given(self._shelf.model)
        return _whole(started, found.answer)

    def _suiting(self, found: Found, asked: Question) -> Started | None:
        """How an answer that was found begins, where it will do: then it is counted as given."""
        state = self._runs.state(found, asked.key, asked.call)
        return self._hit(found, asked, state) if state in GIVEN else None

    async def close(self) -> None:
        """Ends the runs that are shared, and those that renew stored answers."""
        await self.ledger.flights.close()

    async def _passing(self, call: Call, use: Use) -> AsyncGenerator[Event, None]:
        """Answers one call beside the cache."""
        if call.request.cache.mode is CacheMode.ONLY_IF_CACHED:
            raise self._runs.not_cached(use.reason)
        async with aclosing(generator(self._inner(call))) as events:
            async for event in events:
                yield _told(event, CacheResult.BYPASS, use.reason) if isinstance(event, Started) else event

    async def _run(self, asked: Question, *, shares: bool, absent: bool) -> AsyncGenerator[Event, None]:
        """Answers a call by what is stored, or by a run, which equal calls share where the call `shares`; by another
        one where that fails before it has begun. `absent` says that the memory has just been found to have nothing."""
        looked = None
        if asked.use.read:
            looked = await self._looked(asked) if self._runs.terms.below else ABSENT if absent else None
        found = None if looked is None else looked.found
        if found is not None and (started := self._suiting(found, asked)) is not None:
            async with aclosing(_replayed(found, started, asked.call)) as events:
                async for event in events:
                    yield event
            return
        look, failures = True, 0
        while True:
            runs = self._runs
            follower = runs.follow(asked, look=look, looked=looked) if shares else runs.alone(asked, looked)
            try:
                part = await follower.next()
                if isinstance(part, Stored) and not self._suits(part, asked):
                    if part.error is not None:
                        raise own(part.error, led=follower.led) from part.error
                    look = False  # what is stored is too old for this call
                    continue
                if isinstance(part, Stored):
                    async with aclosing(self._given(part, asked, led=follower.led)) as events:
                        async for event in events:
                            yield event
                    return
                while part is not None and not isinstance(part, Stored):
                    yield part if isinstance(part, Token) else self._relayed(part, follower, asked)
                    if isinstance(part, Finished):
                        return
                    while (part := follower.at_hand()) is None and not follower.is_over:
                        await follower.news()
                return
            except RunFailed as failed:
                error, looked = failed.__cause__, None
                failures += not is_own(error)
                if follower.led or is_refusal(error) or failures == MOST_RUNS:
                    raise own(error, led=follower.led) from error
            finally:
                await follower.leave()

    async def _looked(self, asked: Question) -> Look | None:
        """What a look into the tiers below the memory comes to, which equal calls share; None where a run can be joined
        at once, or the call may not have the time: then its run looks."""
        runs, deadline, look = self._runs, asked.call.deadline, None
        while look is None and not runs.joinable(asked):
            if deadline is not None and deadline - time.monotonic() < self._answers.look_s:
                return None
            look = await runs.looks.look(asked.key)
        return look

    def _relayed(self, event: Event, follower: Follower[Part], asked: Question) -> Event:
        """An event of a run, as it is for one of those who follow it."""
        if isinstance(event, Finished):
            return event if follower.led else replace(event, timing=_share(event.timing, follower))
        if not isinstance(event, Started):
            return event
        reason = asked.use.reason
        if follower.led:
            if not asked.use.read:
                return _told(event, CacheResult.BYPASS, reason)
            return _told(event, CacheResult.MISS, reason, "cache: not found")
        self._metrics.cache_lookup(self._shelf.model, "coalesced")
        self.ledger.coalesced += 1
        if asked.call.trace.span is not None:
            note_look(asked.call.trace.span, "coalesced")
        joined = "cache: joined the run of an equal call that was under way"
        own_part = Started(replace(event.route, attempts=()))  # what failed before is the other call's
        return _told(own_part, CacheResult.COALESCED, reason, joined)

    def _given(self, stored: Stored, asked: Question, *, led: bool) -> AsyncGenerator[Event, None]:
        """A stored answer that suits, replayed as the call wants it; what failed is told to the call that `led`."""
        found = stored.found
        state = self._runs.state(found, asked.key, asked.call)
        started = self._hit(found, asked, state)
        if stored.error is not None:
            instead = f"cache: given because the model failed: {stored.error.reason}"
            route, attempts = started.route, stored.error.attempts if led else ()
            started = Started(replace(route, reasons=(*route.reasons, instead), attempts=attempts))
        return _replayed(found, started, asked.call)

    def _suits(self, stored: Stored, asked: Question) -> bool:
        """Whether a stored answer, which another call may have looked for, will do for this one."""
        state = self._runs.state(stored.found, asked.key, asked.call)
        return state in GIVEN or (state is Freshness.SPARE and stored.error is not None)

    def _hit(self, found: Found, asked: Question, state: Freshness) -> Started:
        """Counts a hit, has it renewed where it is stale, and says in words what was found."""
        self._metrics.cache_lookup(self._shelf.model, "hit")
        self.ledger.hit(found.answer)
        if asked.call.trace.span is not None:
            note_look(asked.call.trace.span, "hit", found.tier)
        answer, age_s = found.answer, self._runs.age_s(found.answer)
        stale = "" if state is FRESH else ", stale"
        if stale and state is Freshness.STALE and asked.use.write:
            self._runs.refresh(asked)
            stale = ", stale and being renewed"
        return Started(
            Route(
                model=answer.model,
                version=answer.version,
                cache=HIT,
                cache_age_s=age_s,
                cache_key=asked.key.digest,
                reasons=(asked.use.reason, f"cache: found in {found.tier}, stored {age_s:.0f} s ago{stale}"),
            )
        )


def _share(timing: Timing, follower: Follower[Part]) -> Timing:
    """Where the time of one who joined went: the run waited for its one permit on behalf of whoever began it."""
    return Timing(backend_s=min(follower.waited_s, timing.queue_s + timing.backend_s))


def _replayed(found: Found, started: Started, call: Call) -> AsyncGenerator[Event, None]:
    """A stored answer as the call wants it: at once, or at the pace that it had."""
    if call.request.cache.original_pace:
        return paced(found.answer, started, call.deadline)
    return _at_once(_whole(started, found.answer))


async def _at_once(whole: Whole) -> AsyncGenerator[Event, None]:
    yield whole


def _whole(started: Started, answer: StoredAnswer) -> Whole:
    return Whole(started, answer.tokens, answer.finished, answer.forms)


def _told(started: Started, result: CacheResult, *reasons: str) -> Started:
    route = started.route
    if route.cache is HIT:  # the semantic layer's, which has told all of it
        return started
    return Started(replace(route, cache=result, reasons=(*route.reasons, *reasons)))
