"""The answers that are kept, in all tiers of this process: the nearest that has one gives it, and fills those above."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from polyroute.routing.cache.codec import Codec, StoredAnswer, size_of
from polyroute.routing.cache.frame import header_of, payload_of, relabelled
from polyroute.routing.cache.guarded import Counts, GuardedTier
from polyroute.routing.cache.invalidation_log import Kind, Record
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier, footprint
from polyroute.routing.cache.terms import MAX_ANSWER_BYTES, AnswerKey, Found, Moment, Stay, Terms
from polyroute.routing.cache.tier import Held, Label
from polyroute.routing.cache.tier_stats import AnswersStats, Reading, stats_of
from polyroute.routing.cache.upkeep import Upkeep
from polyroute.routing.cache.writing import Parcel, Writing
from polyroute.routing.views import TierCounts

if TYPE_CHECKING:  # redis-py is not there in every installation
    from polyroute.routing.cache.leases import Leases
    from polyroute.routing.cache.sharing import Sharing

_CLOSE_S: Final = 5.0

log = structlog.get_logger(__name__)


class Answers:
    """All tiers of this process: memory, and below it those given, nearest first.

    A memory hit is found without waiting (`at_hand`); other tiers are asked within their limits (`find`). What is kept
    is written to the tiers below behind the call. Nothing here raises, whatever is wrong with a tier.
    """

    def __init__(
        self,
        memory: MemoryTier,
        below: Sequence[GuardedTier],
        invalidations: Invalidations,
        codec: Codec,
        *,
        sharing: Sharing | None = None,
        leases: Leases | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.memory = memory
        self.below = tuple(below)
        self.counts = Counts()
        """What the memory was asked and did."""
        self.leases = leases
        """Who may run what, among machines that share a Redis; None where there is none."""
        self._named = {tier.name: tier for tier in below}
        self._invalidations = invalidations
        self._codec = codec
        self._wall = wall
        self._hits: Counter[tuple[str, str]] = Counter()
        """By tier and model."""
        self._writing = Writing(self._named, invalidations, codec)
        self._sharing = sharing
        self._upkeep = Upkeep(memory, self.below, invalidations)
        self._tending: list[asyncio.Task[None]] = []
        invalidations.forgotten = memory.forget
        if sharing is not None:
            sharing.heard = self._heard

    def __repr__(self) -> str:
        return f"<Answers {self.memory!r} {self.below!r} writing={len(self._writing)}>"

    @property
    def errors(self) -> int:
        """Failures of tiers since the server started."""
        failures = 0
        for tier in self.below:
            failures += tier.counts.errors + tier.counts.skipped
        return failures

    @property
    def look_s(self) -> float:
        """How long `find` takes at most, in seconds."""
        return sum(tier.tier.get_s for tier in self.below)

    def key(self, model: str, canonical: bytes) -> AnswerKey:
        """The key of a call that begins now: answers invalidated from here on are not found or kept under it."""
        return AnswerKey.of(canonical, self._invalidations.moment(model))

    def moment(self, model: str) -> Moment:
        """That of a call which begins now, for its key."""
        return self._invalidations.moment(model)

    def at_hand(self, key: AnswerKey, terms: Terms) -> Found | None:
        """The answer in this process's memory, if it is there. Never waits, and counts nothing: who gives it does."""
        if terms.memory is None:
            return None
        answer = self.memory.get(key)
        if answer is None or (terms.ttl_s is not None and terms.outlived(self._wall() - answer.created)):
            return None
        return Found(answer, "memory")

    def given(self, model: str) -> None:
        """Counts an answer that was at hand, and was given."""
        self.counts.hits += 1
        self._hits["memory", model] += 1

    def missed(self) -> None:
        """Counts that the memory was looked into, and had no answer."""
        self.counts.misses += 1

    async def find(self, key: AnswerKey, terms: Terms) -> Found | None:
        """The answer in the nearest tier that has it, which fills the tiers above; None where no tier does."""
        if terms.memory is not None:
            found = self.at_hand(key, terms)
            if found is not None:
                self.given(terms.model)
                return found
            self.missed()
        missed: list[Stay] = []
        for stay in terms.below:
            tier = self._named.get(stay.tier)
            if tier is None:
                continue
            entry = None if tier.lacks(key.digest) else await tier.get(key.digest)
            had = None if entry is None else self._opened(tier, key, terms, entry)
            if had is not None:
                answer, local, plain_bytes = had
                tier.counts.hits += 1
                self._hits[tier.name, terms.model] += 1
                if self._invalidations.holds(key, terms.model):
                    age_s, size = max(0.0, self._wall() - answer.created), footprint(answer, plain_bytes)
                    self._remember(key, terms, answer, size, age_s)
                    if missed:  # which are above
                        self._writing.begin(Parcel(key, answer, terms, size, age_s, local), missed)
                return Found(answer, tier.name)
            tier.counts.misses += 1
            missed.append(stay)
        return None

    def keep(self, key: AnswerKey, answer: StoredAnswer, terms: Terms) -> bool:
        """Keeps a complete answer: in memory at once, in the tiers below behind the call.

        False where it is refused: it is no text that can be encoded, is larger than `MAX_ANSWER_BYTES`, is too old as
        it comes, or was made unreachable since its call began.
        """
        age_s = max(0.0, self._wall() - answer.created)
        if terms.outlived(age_s):
            return False
        try:
            encoded = size_of(answer)
        except ValueError as error:
            log.warning("cache.refused", model=answer.model, error=str(error), effect="the answer is not kept")
            return False
        if encoded > MAX_ANSWER_BYTES or not self._invalidations.holds(key, terms.model):
            return False
        size = footprint(answer, encoded)
        self._upkeep.versions[terms.model] = answer.version
        self._remember(key, terms, answer, size, age_s)
        below = [stay for stay in terms.below if stay.tier in self._named]
        if below:
            self._writing.begin(Parcel(key, answer, terms, size, age_s), below)
        return True

    async def forget(self, digest: str) -> int:
        """Makes the answer with this digest unreachable, everywhere; returns how many were known."""
        removed = self.memory.forget(digest)
        record = await self._invalidations.forget(digest)
        deleted = await asyncio.gather(*(tier.delete(digest) for tier in self.below))
        await self._told(record)
        return max(removed, *deleted, 0)

    async def invalidate(self, model: str = "") -> int:
        """Makes the answers of a model, or all, unreachable; returns how many were known, in the tier that had most.

        On this machine that is so at once, on others that share a Redis as `Sharing` says. What they took is reclaimed
        in the background.
        """
        known = self.memory.entries_of(model)
        record = await self._invalidations.invalidate(model)  # before anything that may take long
        below = asyncio.gather(*(tier.entries_of(model) for tier in self.below))
        _, counted = await asyncio.gather(self._told(record), below)
        self._upkeep.ask(everywhere=True)
        return max(known, *counted, 0)

    async def stats(self) -> AnswersStats:
        """What each tier holds, and what it did since the server started."""
        held = await asyncio.gather(*(tier.held() for tier in self.below))
        memory = self.memory
        own = Held(len(memory), memory.bytes, dict(memory.by_model))
        readings = [Reading("memory", "this process", memory.max_bytes, self.counts, own)]
        for tier, each in zip(self.below, held, strict=True):
            readings.append(Reading(tier.name, tier.location, tier.max_bytes, tier.counts, each, tier.trouble))
        return stats_of(readings, self._hits)

    def counted(self) -> Iterator[TierCounts]:
        """What each tier was asked and did since the server started, and whether it is used now; nearest first."""
        memory = self.memory
        yield replace(self.counts.view("memory"), bytes=memory.bytes, max_bytes=memory.max_bytes)
        for tier in self.below:
            yield tier.counts.view(tier.name, read=tier.reads.open, written=tier.writes.open)

    async def start(self) -> None:
        """Opens every tier, and begins to tend them. One that cannot be opened is no error here."""
        await self._invalidations.tend()
        await asyncio.gather(*(tier.start() for tier in self.below))
        self._tending.append(asyncio.create_task(self._upkeep.run(), name="care of the cache"))
        if self._sharing is not None:
            self._tending.append(asyncio.create_task(self._sharing.run(), name="invalidations of other machines"))

    async def flush(self) -> None:
        """Waits until what is being written now is written; what is begun meanwhile, it does not wait for."""
        await self._writing.flush()

    async def close(self) -> None:
        """Writes what is on its way, for a few seconds at most, and closes every tier. Not to be used afterwards."""
        for task in self._tending:
            task.cancel()
        await asyncio.gather(*self._tending, return_exceptions=True)
        await self._writing.close(_CLOSE_S)
        await asyncio.gather(*(tier.close() for tier in self.below))
        self._invalidations.close()

    def _opened(
        self, tier: GuardedTier, key: AnswerKey, terms: Terms, entry: bytes
    ) -> tuple[StoredAnswer, bytes, int] | None:
        """What `entry` holds, where it is the answer to the very request and still to be found; the entry as it stands
        in the tiers of this machine; and the answer's size in bytes before it was compressed."""
        try:
            header = header_of(entry)
            moment = header.label.moment
            if moment.shared != key.moment.shared if tier.shared else moment.local != key.moment.local:
                return None
            answer = self._codec.decode(payload_of(entry, header))
        except ValueError as error:
            tier.spoilt(str(error))
            return None
        if answer.key != key.canonical or terms.outlived(self._wall() - answer.created):
            return None
        if self._invalidations.forgot(key.digest, answer.created, shared=tier.shared):
            return None  # it was on its way here, and is about to be taken out again
        if tier.shared:
            entry = relabelled(entry, header, Label(answer.model, answer.version, key.moment))
        return answer, entry, header.plain_bytes

    def _remember(self, key: AnswerKey, terms: Terms, answer: StoredAnswer, size: int, age_s: float) -> None:
        if terms.memory is not None:
            stay_s = terms.remaining_s(terms.memory, key.digest, age_s)
            self.counts.stores += self.memory.put(key, answer, size, stay_s)

    async def _told(self, record: Record) -> None:
        if self._sharing is not None:
            await self._sharing.tell(record)

    async def _heard(self, record: Record) -> None:
        """Another machine has told of an invalidation, which is in force here already."""
        if record.kind is Kind.ENTRY:
            await asyncio.gather(*(tier.delete(record.name.hex()) for tier in self.below if not tier.shared))
        else:
            self._upkeep.ask(everywhere=False)

    async def sweep(self) -> None:
        """Reclaims what can be found no more, now and in every tier."""
        await self._upkeep.sweep(everywhere=True)
