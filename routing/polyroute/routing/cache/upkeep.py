"""The care of the tiers: what can be found no more is reclaimed, in the background and a little at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import structlog

from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.routing.cache.terms import Moment
from polyroute.routing.cache.tier import Label

_TEND_EVERY_S: Final = 1.0
"""So late may this process be in seeing that the file of invalidations was removed or replaced by hand."""
_SWEEP_EVERY_S: Final = 600.0
_SWEEP_AT_A_TIME: Final = 512
_OUTDATED_S: Final = 3600.0
"""How long answers of a version are left that is not the current one and that nobody stores any more."""


log = structlog.get_logger(__name__)


class Upkeep:
    """Tends the invalidations and sweeps the tiers, now and then and when asked; `run` until it is cancelled."""

    def __init__(self, memory: MemoryTier, below: Sequence[GuardedTier], invalidations: Invalidations) -> None:
        self.versions: dict[str, str] = {}
        """The version of each model that an answer was kept of last."""
        self._memory = memory
        self._below = below
        self._invalidations = invalidations
        self._due = asyncio.Event()
        self._everywhere = False

    def ask(self, *, everywhere: bool) -> None:
        """Has it sweep soon; `everywhere` is also in tiers that machines share, which one of them is to do."""
        self._everywhere |= everywhere
        self._due.set()

    async def run(self) -> None:
        """Does what is due, for ever."""
        swept = time.monotonic()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TEND_EVERY_S):  # `wait_for` may lose a cancellation
                    await self._due.wait()
            try:
                await self._invalidations.tend()
                if self._due.is_set() or time.monotonic() - swept >= _SWEEP_EVERY_S:
                    swept = time.monotonic()
                    everywhere, self._everywhere = self._everywhere, False
                    self._due.clear()
                    await self.sweep(everywhere=everywhere)
            except Exception:  # our bug, and the next turn is to come all the same
                log.exception("cache.upkeep_failed")

    async def sweep(self, *, everywhere: bool) -> None:
        """Reclaims what can be found no more, a little at a time; in tiers that machines share only if `everywhere`."""
        for place, _ in enumerate(self._memory.sweep(lambda model: self._invalidations.moment(model).local)):
            if place % _SWEEP_AT_A_TIME == 0:
                await asyncio.sleep(0)
        if self._invalidations.trusted:
            for tier in self._below:
                if everywhere or not tier.shared:
                    await tier.reclaim(partial(self._stale, self._invalidations.moments(), tier.shared))

    def _stale(self, moments: Callable[[str], Moment], shared: bool, label: Label, unused_s: float) -> bool:
        """Whether entries of that label can be found no more, or are of a version that has been replaced. Asked in any
        thread, while new ones are kept."""
        now, then = moments(label.model), label.moment
        if now.shared > then.shared if shared else now.local > then.local:
            return True
        current = self.versions.get(label.model, label.version)
        return current != label.version and unused_s > _OUTDATED_S
