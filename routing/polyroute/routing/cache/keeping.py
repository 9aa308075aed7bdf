"""Keeps the answers of runs, where they may be kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from polyroute.core.event import CacheResult, Event, Finished, FinishReason, Started, Timing, Token
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.freshness import upstream_age_s
from polyroute.routing.cache.parts import text_bytes
from polyroute.routing.cache.question import Question
from polyroute.routing.cache.replay import Gaps
from polyroute.routing.cache.shelf import Ledger, Shelf
from polyroute.routing.cache.terms import MAX_ANSWER_BYTES, AnswerKey, Terms
from polyroute.routing.metrics import Metrics

_NO_TIME: Final = Timing()


class Keeper:
    """Keeps answers of one model by its terms, and counts them. `wall` gives Unix time in seconds."""

    def __init__(
        self,
        shelf: Shelf,
        answers: Answers,
        metrics: Metrics,
        *,
        ledger: Ledger,
        terms: Terms,
        wall: Callable[[], float],
    ) -> None:
        self.wall = wall
        self._shelf = shelf
        self._answers = answers
        self._metrics = metrics
        self._ledger = ledger
        self._terms = terms

    def key_of(self, asked: Question, version: str) -> AnswerKey:
        """The key of an answer of that version, which another one may have given than the one that was looked for."""
        if version == asked.version:
            return asked.key
        return asked.key.but(self._shelf.key(asked.call, version))

    def refused(self) -> None:
        """An answer is too large to be kept."""
        self._metrics.cache_store(self._shelf.model, "refused")

    def keep(
        self,
        key: AnswerKey,
        version: str,
        tokens: tuple[Token, ...],
        finished: Finished,
        created: float,
        gaps_ms: tuple[int, ...],
        took_s: float,
    ) -> None:
        """Keeps a complete answer of that version, unless it was filtered or nobody knows what gave it.

        `created` is Unix time, and `gaps_ms` as of `polyroute.routing.cache.codec.StoredAnswer`.
        """
        # A peer of the older dialect gives whole answers without a reason; a filtered one is not the whole answer.
        if finished.reason is FinishReason.CONTENT_FILTER or not version:
            return
        end, model = replace(finished, timing=_NO_TIME), self._shelf.model
        answer = StoredAnswer(key.canonical, model, version, tokens, end, created, took_s, gaps_ms)
        kept = self._answers.keep(key, answer, self._terms)
        self._metrics.cache_store(model, "stored" if kept else "refused")
        if kept:
            self._ledger.stores += 1


class Keeping:
    """Looks on at the events of one run that answers the question, and has the answer kept that they make."""

    __slots__ = (
        "_aged_s",
        "_asked",
        "_begun_at",
        "_keeper",
        "_key",
        "_size",
        "_tokens",
        "_version",
        "complete",
        "gaps",
    )

    def __init__(self, asked: Question, keeper: Keeper) -> None:
        self._asked = asked
        self._keeper = keeper
        self._begun_at = time.monotonic()
        self._key, self._version, self._aged_s = asked.key, "", 0.0
        self._tokens: list[Token] | None = [] if asked.use.write else None
        self._size = 0
        self.gaps = Gaps()
        self.complete = False
        """Whether the run has come to its end."""

    def saw(self, event: Event) -> Event:
        """Notes an event of the run; the first is told what the answer will be found under."""
        if isinstance(event, Started):
            return self._started(event)
        if isinstance(event, Token):
            if self._tokens is not None:
                self._token(event, self._tokens)
        elif isinstance(event, Finished):
            self.complete = True
            if self._tokens is not None:
                self._finished(event, self._tokens)
        return event

    def _started(self, event: Started) -> Started:
        route = event.route
        if route.cache is CacheResult.HIT:
            self._tokens = None  # the semantic layer's: the answer to another request
            return event
        self._version, self._aged_s = route.version, upstream_age_s(route)
        self._key = self._keeper.key_of(self._asked, route.version)
        return Started(replace(route, cache_key=self._key.digest if route.version and self._asked.use.write else ""))

    def _token(self, token: Token, tokens: list[Token]) -> None:
        self.gaps.note()
        self._size += text_bytes(token)
        bare = not (token.pieces or token.last)
        tokens.append(token if bare else Token(token.text, token.tool_calls, token.logprobs))
        if self._size > MAX_ANSWER_BYTES:
            self._tokens = None
            self._keeper.refused()

    def _finished(self, end: Finished, tokens: list[Token]) -> None:
        # Kept before the end is passed on: who has the end may never come back for more.
        self.gaps.note()
        gaps_ms = self.gaps.since(end.timing.queue_s)
        created = max(0.0, self._keeper.wall() - self._aged_s)
        took_s = time.monotonic() - self._begun_at
        self._keeper.keep(self._key, self._version, tuple(tokens), end, created, gaps_ms, took_s)
