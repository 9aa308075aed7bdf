"""How long a deployment takes to its first token, learned from its calls."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import ceil
from typing import Final

KEPT: Final = 256
"""How many of the newest times count."""

ENOUGH: Final = 20
"""Fewer times than these say nothing of rare ones."""


class FirstTokens:
    """The times of the last `KEPT` calls that were answered, in seconds."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """A call has begun to be answered after so long."""
        if len(self._newest) == KEPT:
            del self._sorted[bisect_left(self._sorted, self._newest.popleft())]
        self._newest.append(seconds)
        insort(self._sorted, seconds)

    @property
    def typical_s(self) -> float:
        """The median; 0 as long as nothing is known."""
        return self._sorted[(len(self._sorted) - 1) // 2] if self._sorted else 0.0

    def percentile_s(self, percent: int) -> float | None:
        """The time within which `percent` percent of the calls began to be answered; None while too little is known."""
        if len(self._sorted) < ENOUGH:
            return None
        return self._sorted[max(0, ceil(len(self._sorted) * percent / 100) - 1)]
