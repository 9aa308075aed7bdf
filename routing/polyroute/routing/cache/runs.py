"""Runs of what lies below the cache: shared by equal calls, and their answers kept where they may be."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable
from contextlib import aclosing
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from polyroute.core.call import Call, Service
from polyroute.core.errors import NotCached, PolyrouteError
from polyroute.core.event import CacheResult, Finished, FinishReason, Started, Timing, Token
from polyroute.core.request import CacheMode
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.eligibility import Use
from polyroute.routing.cache.fleet import Turn
from polyroute.routing.cache.flights import Flight, Follower
from polyroute.routing.cache.freshness import Freshness, freshness, upstream_age_s
from polyroute.routing.cache.look_event import note_look
from polyroute.routing.cache.outcome import is_failure
from polyroute.routing.cache.parts import Part, Stored, text_bytes
from polyroute.routing.cache.replay import Gaps
from polyroute.routing.cache.shelf import Ledger, Shelf
from polyroute.routing.cache.terms import MAX_ANSWER_BYTES, AnswerKey, Found, Terms
from polyroute.routing.metrics import Metrics
from polyroute.routing.occupancy import Occupancy
from polyroute.routing.streams import generator

MOST_REFRESHES: Final = 8
"""Stored answers of one model that are renewed at once; others are given without that."""

GIVEN: Final = (Freshness.FRESH, Freshness.STALE)
_NO_TIME: Final = Timing()

log = structlog.get_logger(__name__)


class Question(msgspec.Struct, frozen=True, gc=False):
    """A call that may use the cache, and what its answer is found under while the model is of that version."""

    call: Call
    use: Use
    version: str
    key: AnswerKey


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
        self._inner = inner
        self._shelf = shelf
        self._answers = answers
        self._metrics = metrics
        self._occupancy = occupancy
        self._wall = wall

    def age_s(self, answer: StoredAnswer) -> float:
        """How old an answer is, in seconds; one from a clock that is ahead has just been made."""
        return max(0.0, self._wall() - answer.created)

    def state(self, found: Found, key: AnswerKey, call: Call) -> Freshness:
        """How good a stored answer is for a call."""
        config, max_age_s = self._shelf.config, call.request.cache.max_age_s
        if config.ttl is None and max_age_s is None:
            return Freshness.FRESH
        return freshness(self.age_s(found.answer), self.terms.fresh_s(key.digest), config, max_age_s)

    def follow(self, asked: Question, *, look: bool) -> Follower[Part]:
        """Joins the run that answers the question, or begins one, which looks for a stored answer where `look` says so.

        One that does not look is of the model for sure, which is good for every call.
        """
        flights, call = self.ledger.flights, asked.call
        follower = flights.follow(self._shared_by(asked, look=False), call.deadline)
        if follower is None and look:
            follower = flights.follow(self._shared_by(asked, look=True), call.deadline)
        return follower or self._begin(asked, look=look).follow(call.deadline, led=True)

    def refresh(self, asked: Question) -> None:
        """Renews a stored answer in the background, unless that is going on already, or too many others are renewed."""
        flights = self.ledger.flights
        if self._shared_by(asked, look=False) in flights or self._shared_by(asked, look=True) in flights:
            return
        if self.ledger.refreshing >= MOST_REFRESHES:
            self._metrics.cache_refreshed(self._shelf.model, "skipped")
            return
        self.ledger.refreshing += 1
        flight = self._begin(asked, look=False, lasting=True)
        flight.task.add_done_callback(lambda _: self._refreshed(flight))

    def _refreshed(self, flight: Flight[Part]) -> None:
        self.ledger.refreshing -= 1
        self._metrics.cache_refreshed(self._shelf.model, "ok" if flight.failure is None else "failed")
        if isinstance(flight.failure, PolyrouteError):
            log.info("cache.refresh_failed", model=self._shelf.model, error=flight.failure.own_message)
        elif flight.failure is not None:
            log.error("cache.refresh_crashed", model=self._shelf.model, exc_info=flight.failure)

    def _begin(self, asked: Question, *, look: bool, lasting: bool = False) -> Flight[Part]:
        """Begins a run that is detached from the call: those who follow it have deadlines, and it has none itself."""

        def run(flight: Flight[Part]) -> AsyncIterator[Part]:
            return self.parts(asked, replace(asked.call, deadline=None, start_by=flight.furthest), look=look)

        flight = self.ledger.flights.begin(self._shared_by(asked, look=look), run, lasting=lasting)
        self._occupancy.enter()
        flight.task.add_done_callback(lambda _: self._occupancy.leave())
        return flight

    def _shared_by(self, asked: Question, *, look: bool) -> Hashable:
        """What calls have in common that may share a run. A peer is told `max_age`, and may answer from its cache."""
        call = asked.call
        return asked.key, call.wait_for_load, look, None if self._shelf.local else call.request.cache.max_age_s

    async def parts(self, asked: Question, call: Call, *, look: bool) -> AsyncGenerator[Part, None]:
        """The stored answer, where one is looked for and good; else the events of the layers below, asked by `call`.

        Where those fail, a stored answer that is good for this case. Raises `NotCached` where only a stored one may be
        given.
        """
        spare, turn = None, None
        if look:
            errors = self._answers.errors
            found = await self._answers.find(asked.key, self.terms)
            state = Freshness.OUT if found is None else self.state(found, asked.key, asked.call)
            if state not in GIVEN and (turn := await self._turn(asked)) is not None and turn.found is not None:
                found, state = turn.found, Freshness.FRESH
                await turn.end()
            if found is not None and state in GIVEN:
                yield Stored(found)
                return
            self.ledger.misses += 1
            result = "error" if self._answers.errors > errors else "miss"
            self._metrics.cache_lookup(self._shelf.model, result)
            if call.trace.span is not None:
                note_look(call.trace.span, result)
            if asked.call.request.cache.mode is CacheMode.ONLY_IF_CACHED:
                raise self.not_cached("no stored answer" if found is None else "the stored answer is too old")
            spare = found if state is Freshness.SPARE else None
        parts: AsyncGenerator[Part, None]
        parts = self._events(asked, call) if spare is None else self._or_spare(asked, call, spare)
        async with aclosing(parts if turn is None else self._in_turn(turn, parts)) as events:
            async for event in events:
                yield event

    async def _turn(self, asked: Question) -> Turn | None:
        """This machine's turn to run, or what another one's run has left; None where machines do not wait for each
        other."""
        leases = self._answers.leases
        if self._shelf.config.coalesce != "fleet" or leases is None or not asked.use.write:
            return None

        async def find() -> Found | None:
            found = await self._answers.find(asked.key, self.terms)
            return found if found is not None and self.state(found, asked.key, asked.call) in GIVEN else None

        return await Turn.of(leases, asked.key, find)

    async def _in_turn(self, turn: Turn, parts: AsyncGenerator[Part, None]) -> AsyncGenerator[Part, None]:
        complete = False
        try:
            async with aclosing(parts):
                async for part in parts:
                    complete = isinstance(part, Finished)
                    yield part
        finally:
            await turn.end(self._answers.flush if complete else None)

    async def _or_spare(self, asked: Question, call: Call, spare: Found) -> AsyncGenerator[Part, None]:
        """The events of the layers below; where they fail before they began, the `spare` answer with the error."""
        begun = False
        try:
            async with aclosing(self._events(asked, call)) as events:
                async for event in events:
                    begun = True
                    yield event
        except PolyrouteError as error:
            if begun or not is_failure(error):
                raise
            yield Stored(spare, error)

    def not_cached(self, why: str) -> NotCached:
        """That there is no stored answer for a call which will have no other."""
        model = self._shelf.model
        return NotCached("answer", model, f"`{model}`: {why}, and the request asks for one")

    async def _events(self, asked: Question, call: Call) -> AsyncGenerator[Part, None]:
        begun = time.monotonic()
        tokens: list[Token] | None = [] if asked.use.write else None
        key, version, size, gaps, aged_s = asked.key, "", 0, Gaps(), 0.0
        async with aclosing(generator(self._inner(call))) as events:
            async for event in events:
                if isinstance(event, Started) and event.route.cache is CacheResult.HIT:
                    tokens = None  # the semantic layer's: the answer to another request
                elif isinstance(event, Started):
                    version, aged_s = event.route.version, upstream_age_s(event.route)
                    key = self._key_of(asked, version)
                    event = Started(replace(event.route, cache_key=key.digest if version and asked.use.write else ""))
                elif tokens is None:
                    pass
                elif isinstance(event, Token):
                    gaps.note()
                    size += text_bytes(event)
                    tokens.append(Token(event.text, event.tool_calls, event.logprobs) if event.pieces else event)
                    if size > MAX_ANSWER_BYTES:
                        tokens = None
                        self._metrics.cache_store(self._shelf.model, "refused")
                elif isinstance(event, Finished):
                    # Kept before the end is passed on: who has the end may never come back for more.
                    gaps.note()
                    gaps_ms = gaps.since(event.timing.queue_s)
                    created = max(0.0, self._wall() - aged_s)
                    self._keep(key, version, tuple(tokens), event, created, gaps_ms, time.monotonic() - begun)
                gaps.held()
                yield event
                gaps.asked()

    def _key_of(self, asked: Question, version: str) -> AnswerKey:
        """The key of an answer of that version, which another one may have given than the one that was looked for."""
        if version == asked.version:
            return asked.key
        return asked.key.but(self._shelf.key(asked.call, version))

    def _keep(
        self,
        key: AnswerKey,
        version: str,
        tokens: tuple[Token, ...],
        finished: Finished,
        created: float,
        gaps_ms: tuple[int, ...],
        took_s: float,
    ) -> None:
        # A peer of the older dialect gives whole answers without a reason; a filtered one is not the whole answer.
        if finished.reason is FinishReason.CONTENT_FILTER or not version:
            return
        end, model = replace(finished, timing=_NO_TIME), self._shelf.model
        answer = StoredAnswer(key.canonical, model, version, tokens, end, created, took_s, gaps_ms)
        kept = self._answers.keep(key, answer, self.terms)
        self._metrics.cache_store(model, "stored" if kept else "refused")
        if kept:
            self.ledger.stores += 1
