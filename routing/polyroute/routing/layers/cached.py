"""An answer that is stored is replayed; one that is not is run, and stored where it may be."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from polyroute.core.backend import Facts
from polyroute.core.call import Call, Service
from polyroute.core.config import CacheConfig
from polyroute.core.errors import NotCached
from polyroute.core.event import CacheResult, Event, Finished, FinishReason, Route, Started, Timing, Token
from polyroute.core.request import CacheMode
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.eligibility import Use, eligibility
from polyroute.routing.cache.key import canonical
from polyroute.routing.cache.terms import MAX_ANSWER_BYTES, AnswerKey, Found, Terms
from polyroute.routing.metrics import Metrics
from polyroute.routing.streams import generator
from polyroute.routing.views import ModelCacheStats

_LOGPROB_BYTES = 32  # the least that one takes


@dataclass(frozen=True, slots=True)
class Shelf:
    """The part of the cache that belongs to one deployment. `facts` tells how its backend is now."""

    model: str
    local: bool
    fingerprint: str
    config: CacheConfig
    facts: Callable[[], Facts]

    def use(self, call: Call) -> Use:
        """What a call may do with it."""
        return eligibility(call.request, self.config, self.facts(), local=self.local)

    def key(self, call: Call, version: str) -> bytes:
        """The full key of a call's answer at `version`."""
        user = "" if self.local else call.request.routing.user  # peers are told, and may answer by it
        return canonical(self.model, version, self.fingerprint, call.request, user)


@dataclass(slots=True)
class Ledger:
    """What the cache has done for one model since the server started.

    It goes on where a reload changes the layers around a model: calls that began in the old ones are counted too.
    """

    stats: ModelCacheStats


class Cached:
    """Looks an answer up before the layers below, and stores a complete one after them."""

    def __init__(
        self,
        inner: Service,
        shelf: Shelf,
        answers: Answers,
        metrics: Metrics,
        *,
        ledger: Ledger | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._inner = inner
        self._shelf = shelf
        self._terms = Terms.of(shelf.model, shelf.config)
        self._answers = answers
        self._metrics = metrics
        self._wall = wall
        self.ledger = ledger or Ledger(ModelCacheStats(shelf.model))

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        use = self._shelf.use(call)
        key = self._key(call) if use.read or use.write else None
        if key is not None and use.read:
            found = await self._look_up(call, key)
            if found is not None:
                async with aclosing(self._replay(found, key, use)) as events:
                    async for event in events:
                        yield event
                return
        if call.request.cache.mode is CacheMode.ONLY_IF_CACHED:
            why = "no stored answer" if use.read else use.reason
            raise NotCached("answer", self._shelf.model, f"`{self._shelf.model}`: {why}, and the request asks for one")
        async with aclosing(self._run(call, use, key)) as events:
            async for event in events:
                yield event

    def _key(self, call: Call) -> AnswerKey:
        return self._answers.key(self._shelf.model, self._shelf.key(call, self._shelf.facts().version))

    async def _look_up(self, call: Call, key: AnswerKey) -> StoredAnswer | None:
        errors = self._answers.errors
        found = self._acceptable(await self._answers.find(key, self._terms), call.request.cache.max_age_s)
        result = "hit" if found is not None else "error" if self._answers.errors > errors else "miss"
        self._metrics.cache_lookup(self._shelf.model, result)
        stats = self.ledger.stats
        if found is None:
            self.ledger.stats = replace(stats, misses=stats.misses + 1)
        else:
            self.ledger.stats = replace(
                stats,
                hits=stats.hits + 1,
                saved_tokens=stats.saved_tokens + found.finished.usage.completion_tokens,
                saved_s=stats.saved_s + found.took_s,
            )
        return found

    def _acceptable(self, found: Found | None, max_age_s: float | None) -> StoredAnswer | None:
        if found is None:
            return None
        age_s = self._wall() - found.answer.created
        return found.answer if max_age_s is None or age_s <= max_age_s else None

    async def _replay(self, answer: StoredAnswer, key: AnswerKey, use: Use) -> AsyncGenerator[Event, None]:
        age_s = max(0.0, self._wall() - answer.created)
        yield Started(
            Route(
                model=answer.model,
                version=answer.version,
                cache=CacheResult.HIT,
                cache_age_s=age_s,
                cache_key=key.digest,
                reasons=(use.reason, f"cache: found, stored {age_s:.0f} s ago"),
            )
        )
        for token in answer.tokens:
            yield token
        yield replace(answer.finished, timing=Timing())

    async def _run(self, call: Call, use: Use, key: AnswerKey | None) -> AsyncGenerator[Event, None]:
        begun = time.monotonic()
        tokens: list[Token] | None = [] if use.write and key is not None else None
        version, size = "", 0
        async with aclosing(generator(self._inner(call))) as events:
            async for event in events:
                if isinstance(event, Started):
                    version = event.route.version
                    key = key.but(self._shelf.key(call, version)) if key is not None and version else None
                    event = Started(self._told(event.route, use, key if use.write else None))
                elif isinstance(event, Token) and tokens is not None:
                    size += len(event.text) + _LOGPROB_BYTES * len(event.logprobs)
                    tokens.append(event)
                    if size > MAX_ANSWER_BYTES:
                        tokens = None
                        self._metrics.cache_store(self._shelf.model, "refused")
                elif isinstance(event, Finished) and tokens is not None and key is not None:
                    # Begun before the end is passed on: who has the end may never come back for more.
                    self._keep(key, version, tokens, event, time.monotonic() - begun)
                yield event

    def _told(self, route: Route, use: Use, key: AnswerKey | None) -> Route:
        result = CacheResult.MISS if use.read else CacheResult.BYPASS
        reasons = (use.reason, "cache: not found") if use.read else (use.reason,)
        cache_key = "" if key is None else key.digest
        return replace(route, cache=result, cache_key=cache_key, reasons=(*route.reasons, *reasons))

    def _keep(self, key: AnswerKey, version: str, tokens: list[Token], finished: Finished, took_s: float) -> None:
        # A peer of the older dialect gives whole answers without a reason; a filtered one is not the whole answer.
        if finished.reason is FinishReason.CONTENT_FILTER or not version:
            return
        model = self._shelf.model
        answer = StoredAnswer(key.canonical, model, version, tuple(tokens), finished, self._wall(), took_s)
        kept = self._answers.keep(key, answer, self._terms)
        self._metrics.cache_store(model, "stored" if kept else "refused")
        if kept:
            self.ledger.stats = replace(self.ledger.stats, stores=self.ledger.stats.stores + 1)
