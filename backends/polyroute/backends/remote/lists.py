"""What peers said a moment ago: of many models behind one URL, each need not ask for the same list."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Final

from polyroute.backends.remote.probe import ModelList

FRESH_S: Final = 1.0
"""How long a list holds for others, from when it was asked for, in seconds."""


class Lists:
    """The lists that were had within the last `FRESH_S`, by `polyroute.backends.remote.peer.Peer.same`."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, ModelList]] = {}  # those that came first stand first

    def __len__(self) -> int:
        return len(self._kept)

    def recent(self, peer: Hashable) -> ModelList | None:
        """The list of that peer, where one was asked for a moment ago."""
        self._forget()
        asked_at, told = self._kept.get(peer, (float("-inf"), None))
        return told if asked_at > self._clock() - FRESH_S else None

    def keep(self, peer: Hashable, told: ModelList, asked_at: float) -> None:
        """Has others use a list that was asked for then, on the clock."""
        self._kept.pop(peer, None)
        self._kept[peer] = (asked_at, told)
        self._forget()

    def _forget(self) -> None:
        least = self._clock() - FRESH_S
        while self._kept and next(iter(self._kept.values()))[0] <= least:
            del self._kept[next(iter(self._kept))]
