"""Answers on their way into the tiers below the memory, behind the calls that they were made for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

import msgspec
import structlog

from polyroute.routing.cache.codec import Codec, StoredAnswer
from polyroute.routing.cache.frame import pack
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.terms import MAX_ANSWER_BYTES, AnswerKey, Stay, Terms
from polyroute.routing.cache.tier import Entry, Label

MOST_WRITING: Final = 512
"""Answers that may be on their way to one tier; more are kept in memory alone."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""Most that they may take in memory; one that is larger goes alone."""
MOST_TOGETHER: Final = 64
"""Most entries that are written in one go; on disk, no other process can write meanwhile."""
PACKED_BYTES: Final = 256 * 1024
"""After so much, in bytes of `Parcel.size`, packing gives way to other calls: it takes a millisecond or two."""
GATHER_S: Final = 0.025
"""How long entries are gathered before they are written together, in seconds: a go costs as much as some six entries,
and one that begins as soon as an answer ends would hold up what its caller asks next."""

log = structlog.get_logger(__name__)


class Parcel(msgspec.Struct, gc=False):
    """An answer on its way, packed when the first tier takes it: many in a row cost less than each after its call.

    `size` is about how many bytes it takes in memory, and `age_s` how old it is, in seconds. `entry` is there where it
    came as one.
    """

    key: AnswerKey
    answer: StoredAnswer
    terms: Terms
    size: int
    age_s: float = 0.0
    entry: bytes = b""

    @property
    def label(self) -> Label:
        """Whose it is."""
        return Label(self.answer.model, self.answer.version, self.key.moment)

    def packed(self, codec: Codec) -> bytes:
        """Its bytes as they stand in a tier; raises `ValueError` where it cannot be encoded, or is too large."""
        if not self.entry:
            payload = codec.encode(self.answer)
            if len(payload) > MAX_ANSWER_BYTES:
                raise ValueError(f"is {len(payload)} bytes, limit {MAX_ANSWER_BYTES}")
            self.entry = pack(payload, self.label)
        return self.entry


class Writing:
    """Writes entries to tiers, by their names, each at its own pace. Nothing here raises."""

    def __init__(self, tiers: Mapping[str, GuardedTier], invalidations: Invalidations, codec: Codec) -> None:
        self._lanes = {name: _Lane(tier, invalidations, codec) for name, tier in tiers.items()}

    def __len__(self) -> int:
        """Entries on their way, those of all tiers together."""
        return sum(map(len, self._lanes.values()))

    def begin(self, parcel: Parcel, stays: Sequence[Stay]) -> None:
        """Writes an answer to the tiers that `stays` name; leaves one out where too much is on its way to it."""
        for stay in stays:
            stay_s = parcel.terms.remaining_s(stay, parcel.key.digest, parcel.age_s)
            if stay_s is None or stay_s > 0:
                self._lanes[stay.tier].add(_Sent(parcel, stay_s))

    async def flush(self) -> None:
        """Has written what is on its way, at once; what is begun meanwhile, it does not wait for."""
        await asyncio.gather(*(lane.flush() for lane in self._lanes.values()))

    async def close(self, limit_s: float) -> None:
        """Waits for what is being written, `limit_s` seconds at most, and gives up the rest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self.flush()
        for lane in self._lanes.values():
            lane.give_up()


class _Sent(NamedTuple):
    """An answer, and for how many seconds it is to stay in a tier."""

    parcel: Parcel
    stay_s: float | None


class _Lane:
    """Entries on their way to one tier: those that come within `GATHER_S`, or while others are written, go together."""

    def __init__(self, tier: GuardedTier, invalidations: Invalidations, codec: Codec) -> None:
        self._tier = tier
        self._invalidations = invalidations
        self._codec = codec
        self._waiting: deque[_Sent] = deque()
        self._bytes = 0
        """What waits and what is being written."""
        self._added = 0
        self._done = 0
        self._task: asyncio.Task[None] | None = None
        self._gathering: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._added - self._done

    def add(self, sent: _Sent) -> None:
        """Takes one more, unless too much is on its way."""
        size = sent.parcel.size
        if len(self) >= MOST_WRITING or (len(self) and self._bytes + size > MOST_BYTES):
            self._tier.counts.skipped += 1
            return
        self._waiting.append(sent)
        self._added += 1
        self._bytes += size
        if self._task is None:
            self._gather()

    async def flush(self) -> None:
        """Has all that was added so far written, without gathering more."""
        until = self._added
        while self._done < until and len(self):
            if self._task is None:
                self._go()
            else:
                await asyncio.wait({self._task})

    def give_up(self) -> None:
        """Writes no more."""
        self._added -= len(self._waiting)
        self._waiting.clear()
        self._end_gathering()
        if self._task is not None:
            self._task.cancel()

    def _gather(self) -> None:
        """Has what waits written in a moment, or now where no more would go together."""
        if len(self._waiting) >= MOST_TOGETHER:
            self._go()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._go)

    def _go(self) -> None:
        self._end_gathering()
        batch = [self._waiting.popleft() for _ in range(min(MOST_TOGETHER, len(self._waiting)))]
        self._task = asyncio.create_task(self._write(batch), name=f"writing to {self._tier.name}")
        self._task.add_done_callback(partial(self._written, batch))

    def _end_gathering(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    async def _write(self, batch: Sequence[_Sent]) -> None:
        packed = await self._packed(batch)
        held = [(sent, entry) for sent, entry in packed if self._holds(sent)]
        if held:
            await self._tier.put([entry for _, entry in held])
        for sent, entry in held:
            if not self._holds(sent):  # it was made unreachable while it was written
                await self._tier.delete(entry.digest)

    async def _packed(self, batch: Sequence[_Sent]) -> Sequence[tuple[_Sent, Entry]]:
        """Those that can be written, with their entries; many long answers in a row would hold every call up."""
        packed, size = [], 0
        for sent in batch:
            if size >= PACKED_BYTES:
                await asyncio.sleep(0)
                size = 0
            if self._holds(sent) and (entry := self._entry(sent)) is not None:
                packed.append((sent, entry))
                size += sent.parcel.size
        return packed

    def _holds(self, sent: _Sent) -> bool:
        return self._invalidations.holds(sent.parcel.key, sent.parcel.terms.model)

    def _entry(self, sent: _Sent) -> Entry | None:
        parcel = sent.parcel
        try:
            content = parcel.packed(self._codec)
        except ValueError as error:
            log.warning("cache.refused", model=parcel.terms.model, error=str(error), effect="kept in memory alone")
            self._tier.counts.skipped += 1
            return None
        return Entry(parcel.key.digest, content, parcel.label, sent.stay_s)

    def _written(self, batch: Sequence[_Sent], _: asyncio.Task[None]) -> None:
        self._task = None
        self._done += len(batch)
        self._bytes -= sum(sent.parcel.size for sent in batch)
        if self._waiting:
            self._gather()
