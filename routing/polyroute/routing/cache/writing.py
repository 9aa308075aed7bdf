"""Answers on their way into the tiers below the memory, behind the calls that they were made for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.terms import AnswerKey, Stay, Terms
from polyroute.routing.cache.tier import Label

MOST_WRITING: Final = 512
"""Answers that may be on their way; more are kept in memory alone."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""Most that they may take; one that is larger goes alone."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """An answer as the bytes of one entry. `age_s` is how old it is, in seconds."""

    key: AnswerKey
    entry: bytes
    label: Label
    terms: Terms
    age_s: float = 0.0


class Writing:
    """Writes entries to tiers, by their names, each in a task of its own. Nothing here raises."""

    def __init__(self, tiers: Mapping[str, GuardedTier], invalidations: Invalidations) -> None:
        self.bytes = 0
        """What is on its way."""
        self._tiers = tiers
        self._invalidations = invalidations
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, keeping: Keeping, stays: Sequence[Stay]) -> None:
        """Writes an entry to the tiers that `stays` name, nearest first; leaves it out where too much is on its way."""
        size = len(keeping.entry)
        if len(self) >= MOST_WRITING or (self._tasks and self.bytes + size > MOST_BYTES):
            for stay in stays:
                self._tiers[stay.tier].counts.skipped += 1
            return
        self.bytes += size
        task = asyncio.create_task(self._write(keeping, stays))
        self._tasks.add(task)
        task.add_done_callback(partial(self._written, size))

    async def flush(self) -> None:
        """Waits until what is being written now is written; what is begun meanwhile, it does not wait for."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def close(self, limit_s: float) -> None:
        """Waits for what is being written, `limit_s` seconds at most, and gives up the rest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self.flush()
        for task in self._tasks:
            task.cancel()

    async def _write(self, keeping: Keeping, stays: Sequence[Stay]) -> None:
        key = keeping.key
        for stay in stays:
            tier = self._tiers[stay.tier]
            stay_s = keeping.terms.remaining_s(stay, key.digest, keeping.age_s)
            if stay_s is not None and stay_s <= 0:
                continue
            await tier.put(key.digest, keeping.entry, keeping.label, stay_s)
            if not self._invalidations.holds(key, keeping.terms.model):  # it was made unreachable while it was written
                await tier.delete(key.digest)

    def _written(self, size: int, task: asyncio.Task[None]) -> None:
        self.bytes -= size
        self._tasks.discard(task)
