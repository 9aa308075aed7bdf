"""Answers on their way into the tiers below the memory, behind the calls that they were made for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.terms import AnswerKey, Stay, Terms
from polyroute.routing.cache.tier import Entry, Label

MOST_WRITING: Final = 512
"""Answers that may be on their way to one tier; more are kept in memory alone."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""Most that they may take; one that is larger goes alone."""
MOST_TOGETHER: Final = 64
"""Most entries that are written in one go; on disk, no other process can write meanwhile."""
GATHER_S: Final = 0.025
"""How long entries are gathered before they are written together, in seconds: a go costs as much as some six entries,
and one that begins as soon as an answer ends would hold up what its caller asks next."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An answer as the bytes of one entry. `age_s` is how old it is, in seconds."""

    key: AnswerKey
    entry: bytes
    label: Label
    terms: Terms
    age_s: float = 0.0


class Writing:
    """Writes entries to tiers, by their names, each at its own pace. Nothing here raises."""

    def __init__(self, tiers: Mapping[str, GuardedTier], invalidations: Invalidations) -> None:
        self._lanes = {name: _Lane(tier, invalidations) for name, tier in tiers.items()}

    def __len__(self) -> int:
        """Entries on their way, those of all tiers together."""
        return sum(map(len, self._lanes.values()))

    def begin(self, packed: Packed, stays: Sequence[Stay]) -> None:
        """Writes an entry to the tiers that `stays` name; leaves one out where too much is on its way to it."""
        key, terms = packed.key, packed.terms
        for stay in stays:
            stay_s = terms.remaining_s(stay, key.digest, packed.age_s)
            if stay_s is None or stay_s > 0:
                entry = Entry(key.digest, packed.entry, packed.label, stay_s)
                self._lanes[stay.tier].add(_Sent(entry, key, terms.model))

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
    """An entry, and what tells whether it may still be found once it is written."""

    entry: Entry
    key: AnswerKey
    model: str


class _Lane:
    """Entries on their way to one tier: those that come within `GATHER_S`, or while others are written, go together."""

    def __init__(self, tier: GuardedTier, invalidations: Invalidations) -> None:
        self._tier = tier
        self._invalidations = invalidations
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
        size = len(sent.entry.content)
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
        held = [sent for sent in batch if self._invalidations.holds(sent.key, sent.model)]
        if held:
            await self._tier.put([sent.entry for sent in held])
        for sent in held:
            if not self._invalidations.holds(sent.key, sent.model):  # it was made unreachable while it was written
                await self._tier.delete(sent.entry.digest)

    def _written(self, batch: Sequence[_Sent], _: asyncio.Task[None]) -> None:
        self._task = None
        self._done += len(batch)
        self._bytes -= sum(len(sent.entry.content) for sent in batch)
        if self._waiting:
            self._gather()
