"""Runs of what lies below the cache: shared by equal calls, and their answers kept where they may be."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from msgspec.structs import replace

from polyroute.core.call import Call, Service
from polyroute.core.errors import NotCached, PolyrouteError
from polyroute.core.request import CacheMode
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.fleet import Turn
from polyroute.routing.cache.flights import Flight, Run
from polyroute.routing.cache.follower import Follower
from polyroute.routing.cache.freshness import FRESH, Freshness, freshness
from polyroute.routing.cache.keeping import Keeper, Keeping
from polyroute.routing.cache.look_event import note_look
from polyroute.routing.cache.looks import ABSENT, Look, Looks
from polyroute.routing.cache.outcome import is_failure
from polyroute.routing.cache.parts import Part, Stored
from polyroute.routing.cache.question import Question
from polyroute.routing.cache.shelf import Ledger, Shelf
from polyroute.routing.cache.terms import AnswerKey, Found, Terms
from polyroute.routing.metrics import Metrics
from polyroute.routing.occupancy import Occupancy
from polyroute.routing.streams import generator

MOST_REFRESHES: Final = 8
"""Stored answers of one model that are renewed at once; others are given without that."""

GIVEN: Final = (Freshness.FRESH, Freshness.STALE)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Looked:
    """What a look comes to: an answer to be `given`; else one to `spare` for a failing model, and the `turn` to run."""

    given: Found | None = None
    spare: Found | None = None
    turn: Turn | None = None


_NOTHING: Final = _Looked()


class Runs:
    """What answers the questions that the memory cannot: the tiers below it, or else the model.

    `occupancy` is the deployment's: a run that is shared occupies it by itself, for who began it may leave before.
    """

    def __init__(
        self,
        inner: Service,
        shelf: Shelf,
        answers: Answers,
        metrics: Metrics,
        *,
        ledger: Ledger,
        occupancy: Occupancy,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.terms = Terms.of(shelf.model, shelf.config)
        self.ledger = ledger
        self.looks = Looks(answers, self.terms)
        self._inner = inner
        self._shelf = shelf
        self._answers = answers
        self._metrics = metrics
        self._occupancy = occupancy
        self._wall = wall
        self._keeper = Keeper(shelf, answers, metrics, ledger=ledger, terms=self.terms, wall=wall)

    def age_s(self, answer: StoredAnswer) -> float:
        """How old an answer is, in seconds; one from a clock that is ahead has just been made."""
        return max(0.0, self._wall() - answer.created)

    def state(self, found: Found, key: AnswerKey, call: Call) -> Freshness:
        """How good a stored answer is for a call."""
        config, max_age_s = self._shelf.config, call.request.cache.max_age_s
        if config.ttl is None and max_age_s is None:
            return FRESH
        return freshness(self.age_s(found.answer), self.terms.fresh_s(key.digest), config, max_age_s)

    def joinable(self, asked: Question) -> bool:
        """Whether a run can be joined that answers the question, and no other answer may be had before: one that renews
        a stored answer is joined by those alone for whom that one is too old."""
        flights = self.ledger.flights
        sure, looking = self._shared_by(asked)
        return looking in flights or (sure in flights and not flights.is_lasting(sure))

    def follow(self, asked: Question, *, look: bool, looked: Look | None = None) -> Follower[Part]:
        """Joins the run that answers the question, or begins one, which looks for a stored answer where `look` says so,
        unless it is told what a look came to that was made just now, `looked`.

        One that does not look is of the model for sure, which is good for every call.
        """
        flights, deadline = self.ledger.flights, asked.call.deadline
        sure, looking = self._shared_by(asked)
        good = (sure, looking) if look else (sure,)
        follower = flights.follow(*good, deadline=deadline)
        if follower is not None:
            return follower
        run = partial(self._run, asked, look=look, looked=looked)
        flight = self._begin(looking if look else sure, run, on_end=self._ended)
        return flight.follow(deadline, led=True)

    def alone(self, asked: Question, looked: Look | None) -> Follower[Part]:
        """Begins a run for one call by its own deadline, joined by nobody; `looked` as for `follow`."""
        run = partial(self._run, asked, look=asked.use.read, looked=looked, detached=False)
        return self.ledger.flights.begin(None, run).follow(led=True)

    def refresh(self, asked: Question) -> None:
        """Renews a stored answer in the background, unless that is going on already, or too many others are renewed."""
        sure, looking = self._shared_by(asked)
        if sure in self.ledger.flights or looking in self.ledger.flights:
            return
        if self.ledger.refreshing >= MOST_REFRESHES:
            self._metrics.cache_refreshed(self._shelf.model, "skipped")
            return
        self.ledger.refreshing += 1
        self._begin(sure, partial(self._run, asked, look=False), lasting=True, on_end=self._refreshed)

    def _refreshed(self, flight: Flight[Part]) -> None:
        self._ended(flight)
        self.ledger.refreshing -= 1
        self._metrics.cache_refreshed(self._shelf.model, "ok" if flight.failure is None else "failed")
        if isinstance(flight.failure, PolyrouteError):
            log.info("cache.refresh_failed", model=self._shelf.model, error=flight.failure.own_message)
        elif flight.failure is not None:
            log.error("cache.refresh_crashed", model=self._shelf.model, exc_info=flight.failure)

    def _begin(
        self, key: Hashable, run: Run[Part], *, on_end: Callable[[Flight[Part]], None], lasting: bool = False
    ) -> Flight[Part]:
        """Begins a run that is detached from the call."""
        self._occupancy.enter()
        return self.ledger.flights.begin(key, run, lasting=lasting, on_end=on_end)

    def _ended(self, _: Flight[Part]) -> None:
        self._occupancy.leave()

    def _shared_by(self, asked: Question) -> tuple[Hashable, Hashable]:
        """What calls have in common that may share a run: one that is of the model for sure, and one that looks first.

        A peer is told `max_age`, and may answer from its cache.
        """
        call, key = asked.call, asked.key
        max_age_s = None if self._shelf.local else call.request.cache.max_age_s
        return (key, call.wait_for_load, max_age_s, False), (key, call.wait_for_load, max_age_s, True)

    async def _run(
        self, asked: Question, flight: Flight[Part], *, look: bool, looked: Look | None = None, detached: bool = True
    ) -> None:
        """Puts the stored answer, where one is looked for and good; else the events of the layers below.

        Where those fail, a stored answer that is good for this case. Raises `NotCached` where only a stored one may be
        given. `looked` is as of `follow`. One that is `detached` from the call has no deadline itself: those who follow
        it have.
        """
        call = asked.call
        if detached and call.deadline is not None:  # nobody has more time than a call that has no deadline
            call = replace(call, deadline=None, start_by=flight.furthest)
        had = await self._looked(asked, call, looked) if look else _NOTHING
        if had.given is not None:
            flight.put(Stored(had.given))
            return
        keeping = Keeping(asked, self._keeper)
        try:
            async with aclosing(generator(self._inner(call))) as events:
                async for event in events:
                    if flight.put(keeping.saw(event)):
                        keeping.gaps.held()
                        await flight.make_room()
                        keeping.gaps.asked()
        except PolyrouteError as error:
            if flight.end or had.spare is None or not is_failure(error):
                raise
            flight.put(Stored(had.spare, error))
        finally:
            if had.turn is not None:
                await had.turn.end(self._answers.flush if keeping.complete else None)

    async def _looked(self, asked: Question, call: Call, looked: Look | None) -> _Looked:
        """What a look for a stored answer comes to; raises `NotCached`, as `_run`."""
        turn = None
        if looked is ABSENT:
            self._answers.missed()
        looked = looked or await self.looks.alone(asked.key)
        found = looked.found
        state = Freshness.OUT if found is None else self.state(found, asked.key, asked.call)
        if found is not None and state in GIVEN:
            return _Looked(given=found)
        if self._shelf.config.coalesce == "fleet":
            turn = await self._turn(asked)
        if turn is not None and turn.found is not None:
            await turn.end()
            return _Looked(given=turn.found)
        self.ledger.misses += 1
        result = "error" if looked.failed else "miss"
        self._metrics.cache_lookup(self._shelf.model, result)
        if call.trace.span is not None:
            note_look(call.trace.span, result)
        if asked.call.request.cache.mode is CacheMode.ONLY_IF_CACHED:
            raise self.not_cached("no stored answer" if found is None else "the stored answer is too old")
        spare = found if state is Freshness.SPARE else None
        return _NOTHING if spare is None and turn is None else _Looked(spare=spare, turn=turn)

    async def _turn(self, asked: Question) -> Turn | None:
        """This machine's turn to run, or what another one's run has left; None where machines do not wait for each
        other."""
        leases = self._answers.leases
        if leases is None or not asked.use.write:
            return None

        async def find() -> Found | None:
            found = await self._answers.find(asked.key, self.terms)
            return found if found is not None and self.state(found, asked.key, asked.call) in GIVEN else None

        return await Turn.of(leases, asked.key, find)

    def not_cached(self, why: str) -> NotCached:
        """That there is no stored answer for a call which will have no other."""
        model = self._shelf.model
        return NotCached("answer", model, f"`{model}`: {why}, and the request asks for one")
