"""Where no equal request was answered before, looks for one that is worded in another way; or only measures that."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from polyroute.core.call import Call, Service
from polyroute.core.config import SemanticConfig
from polyroute.core.embedder import Embedder, NoEmbedding
from polyroute.core.event import CacheResult, Event, Finished, Route, Started, Timing, Token
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.eligibility import Use
from polyroute.routing.cache.freshness import Freshness, freshness
from polyroute.routing.cache.look_event import note_look
from polyroute.routing.cache.neighbours import Known, Near, Neighbours
from polyroute.routing.cache.shelf import Shelf
from polyroute.routing.cache.terms import Terms
from polyroute.routing.cache.wording import Wording, agreement, difference, same, wording
from polyroute.routing.metrics import Metrics
from polyroute.routing.streams import generator
from polyroute.routing.views import SemanticStats

PATIENCE_S: Final = 0.2
"""How long a call that might be answered so waits for its vector and the stored answer, in seconds."""

_MOST_BEHIND: Final = 64
"""Comparisons, and requests to be known, that may be under way behind calls; more are left out, and counted."""
_MOST_TEXT: Final = 64 * 1024
"""Longest answer that is compared, in characters."""


@dataclass(slots=True)
class Lore:
    """What the tier knows of one model, and has done for it since the server started; it goes on across reloads."""

    neighbours: Neighbours
    embedder: str
    lookups: int = 0
    near: int = 0
    served: int = 0
    compared: int = 0
    agreed: int = 0
    agreement: float = 0.0
    skipped: int = 0
    behind: set[asyncio.Task[None]] = field(default_factory=set)

    @classmethod
    def of(cls, config: SemanticConfig, before: Lore | None) -> Lore:
        """That of the layer before, where its vectors are of the same model; else an empty one."""
        if before is None or before.embedder != config.embedder:
            return cls(Neighbours(config.max_entries), config.embedder)
        before.neighbours.resize(config.max_entries)
        return before


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look has found: the request's vector, and the stored answer of a near request, if there is one."""

    vector: bytes
    near: Near | None = None
    answer: StoredAnswer | None = None


class Semantic:
    """A layer below the exact cache: whatever comes here has no stored answer of its own, or wants none.

    `serve` answers with the stored answer of the nearest request, where that is near enough; `measure` answers fresh,
    and compares. Both know a request only once it was answered fresh, in this process. A look that takes longer than
    `patience_s`, or for which there is no vector, is left out.
    """

    def __init__(
        self,
        inner: Service,
        shelf: Shelf,
        answers: Answers,
        embedder: Embedder,
        metrics: Metrics,
        *,
        before: Lore | None = None,
        patience_s: float = PATIENCE_S,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._inner = inner
        self._shelf = shelf
        self._config = shelf.config.semantic
        self._terms = Terms.of(shelf.model, shelf.config)
        self._answers = answers
        self._embedder = embedder
        self._metrics = metrics
        self._patience_s = patience_s
        self._wall = wall
        self.lore = Lore.of(self._config, before)

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        use = self._shelf.use(call)
        worded = wording(call.request) if use.read or use.write else None
        if worded is None:
            events = generator(self._inner(call))
        elif self._config.mode == "serve" and use.read:
            look = await self._look(call, worded, use)
            if look is not None and look.near is not None and look.answer is not None:
                if call.trace.span is not None:
                    note_look(call.trace.span, "hit", "semantic")
                events = self._replay(look.near, look.answer, use)
            else:
                events = self._run(call, worded, use, look)
        else:
            events = self._run(call, worded, use, None)
        async with aclosing(events):
            async for event in events:
                yield event

    def stats(self) -> SemanticStats:
        """What it knows, and has done since the server started."""
        lore = self.lore
        return SemanticStats(
            mode=self._config.mode,
            threshold=self._config.threshold,
            entries=len(lore.neighbours),
            bytes=lore.neighbours.bytes,
            lookups=lore.lookups,
            near=lore.near,
            served=lore.served,
            compared=lore.compared,
            agreed=lore.agreed,
            mean_agreement=lore.agreement / lore.compared if lore.compared else None,
            skipped=lore.skipped,
        )

    async def _look(self, call: Call, worded: Wording, use: Use) -> _Look | None:
        """The vector of a request, and of its neighbours the one to answer with; None where that is left out."""
        try:
            async with asyncio.timeout(self._patience_s):
                vector = await self._embedder.embed(worded.text)
                found = await self._nearest(call, worded, vector) if use.read else None
        except (NoEmbedding, TimeoutError):
            self._skip()
            return None
        self.lore.lookups += use.read
        if found is None:
            return _Look(vector)
        self.lore.near += 1
        return _Look(vector, *found)

    async def _nearest(self, call: Call, worded: Wording, vector: bytes) -> tuple[Near, StoredAnswer] | None:
        version = self._shelf.facts().version
        partition = self._partition(call, worded, version)
        near = self.lore.neighbours.nearest(partition, vector)
        # What is stored for this very request has been looked at above, and is to be renewed.
        itself = near is not None and near.known.key == self._shelf.key(call, version)
        if near is None or itself or near.similarity < self._config.threshold:
            self._count("far")
            return None
        if difference(worded.text, near.known.text):
            self._count("refused")
            return None
        key = self._answers.key(self._shelf.model, near.known.key)
        found = await self._answers.find(key, self._terms)
        if found is None:  # it has left, or was never kept
            self.lore.neighbours.remove(partition, near.known.key)
            self._count("far")
            return None
        age_s = max(0.0, self._wall() - found.answer.created)
        state = freshness(age_s, self._terms.fresh_s(key.digest), self._shelf.config, call.request.cache.max_age_s)
        if state is not Freshness.FRESH:
            self._count("far")
            return None
        self._count("near")
        return near, found.answer

    async def _replay(self, near: Near, answer: StoredAnswer, use: Use) -> AsyncGenerator[Event, None]:
        self.lore.served += 1
        age_s = max(0.0, self._wall() - answer.created)
        likeness = f"similarity {near.similarity:.3f}, threshold {self._config.threshold:g}"
        told = (
            f"cache: answered with the answer to a request worded in another way ({likeness}), stored {age_s:.0f} s ago"
        )
        yield Started(
            Route(
                model=answer.model,
                version=answer.version,
                cache=CacheResult.HIT,
                cache_age_s=age_s,
                cache_key=hashlib.sha256(answer.key).hexdigest(),
                reasons=(use.reason, "cache: no equal request was found", told),
            )
        )
        for token in answer.tokens:
            yield token
        yield replace(answer.finished, timing=Timing())

    async def _run(self, call: Call, worded: Wording, use: Use, looked: _Look | None) -> AsyncGenerator[Event, None]:
        """Answers fresh. What is learnt of it, is learnt behind the call."""
        serving = self._config.mode == "serve" and use.read
        version, texts, size = "", [], 0
        async with aclosing(generator(self._inner(call))) as events:
            async for event in events:
                if isinstance(event, Started):
                    version = event.route.version
                elif isinstance(event, Token) and size <= _MOST_TEXT:
                    texts.append(event.text)
                    size += len(event.text)
                elif isinstance(event, Finished) and version and use.write and not (serving and looked is None):
                    # Begun before the end is passed on: who has the end may never come back for more.
                    self._behind(self._learn(call, worded, use, version, "".join(texts), looked))
                yield event

    async def _learn(
        self, call: Call, worded: Wording, use: Use, version: str, text: str, looked: _Look | None
    ) -> None:
        """Compares a fresh answer with what would have been served, and knows its request from now on."""
        look = looked or await self._look(call, worded, use)
        if look is None:
            return
        if look.answer is not None and len(text) <= _MOST_TEXT:
            self._compare(text, "".join(token.text for token in look.answer.tokens))
        key = self._shelf.key(call, version)
        self.lore.neighbours.add(self._partition(call, worded, version), look.vector, Known(worded.text, key))

    def _compare(self, fresh: str, stored: str) -> None:
        equal = same(fresh, stored)
        self.lore.compared += 1
        self.lore.agreed += equal
        self.lore.agreement += 1.0 if equal else agreement(fresh, stored)
        self._metrics.semantic_compared(self._shelf.model, "equal" if equal else "other")

    def _partition(self, call: Call, worded: Wording, version: str) -> bytes:
        """Stands for all but the words: the canonical key of the request without them."""
        return hashlib.sha256(self._shelf.key(replace(call, request=worded.rest), version)).digest()

    def _behind(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self.lore.behind) >= _MOST_BEHIND:
            work.close()
            self._skip()
            return
        task = asyncio.create_task(work)
        self.lore.behind.add(task)
        task.add_done_callback(self.lore.behind.discard)

    def _skip(self) -> None:
        self.lore.skipped += 1
        self._count("skipped")

    def _count(self, result: str) -> None:
        self._metrics.semantic_lookup(self._shelf.model, result)
