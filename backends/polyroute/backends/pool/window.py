"""Counts over the last seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SLOTS: Final = 10


class Window:
    """How many things there were in the last `length_s` seconds, and how many of them were marked.

    Time passes in `SLOTS` steps, each of which lets the oldest counts go: neither adding nor reading sums up the past.
    `clock` gives seconds.
    """

    def __init__(self, length_s: float, clock: Callable[[], float]) -> None:
        self._slot_s = length_s / SLOTS
        self._clock = clock
        self._counts = [0] * SLOTS
        self._marks = [0] * SLOTS
        self._count = 0
        self._marked = 0
        self._newest = int(clock() // self._slot_s)
        self._newest_until = (self._newest + 1) * self._slot_s

    @property
    def count(self) -> int:
        """Things in the window, marked or not."""
        self._pass()
        return self._count

    @property
    def marked(self) -> int:
        """Marked ones in the window."""
        self._pass()
        return self._marked

    def add(self, count: int = 1, marked: int = 0) -> None:
        """Counts `count` things and `marked` marks."""
        self._pass()
        place = self._newest % SLOTS
        self._counts[place] += count
        self._count += count
        if marked:
            self._marks[place] += marked
            self._marked += marked

    def clear(self) -> None:
        """Forgets everything."""
        self._counts, self._marks = [0] * SLOTS, [0] * SLOTS
        self._count = self._marked = 0

    def _pass(self) -> None:
        time_s = self._clock()
        if time_s < self._newest_until:
            return
        now = int(time_s // self._slot_s)
        for slot in range(max(self._newest, now - SLOTS) + 1, now + 1):
            place = slot % SLOTS
            self._count -= self._counts[place]
            self._marked -= self._marks[place]
            self._counts[place] = self._marks[place] = 0
        self._newest = max(self._newest, now)
        self._newest_until = (self._newest + 1) * self._slot_s
