"""Who is inside, and when the last has left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


class Occupancy:
    """Counts calls from when they enter until they leave; one is inside for as long as a block lasts, too."""

    __slots__ = ("_empty", "inside")

    def __init__(self) -> None:
        self.inside = 0
        """Calls inside now."""
        self._empty: asyncio.Event | None = None  # made for who waits: most are never waited for

    def __repr__(self) -> str:
        return f"<Occupancy {self.inside}>"

    def enter(self) -> None:
        """One more is inside; to be followed by one `leave`."""
        self.inside += 1
        if self._empty is not None:
            self._empty.clear()

    def leave(self) -> None:
        """One has left."""
        self.inside -= 1
        if not self.inside and self._empty is not None:
            self._empty.set()

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

    async def empty(self, limit_s: float) -> bool:
        """Waits until nobody is inside, `limit_s` seconds at most; says whether that is so."""
        if self._empty is None:
            self._empty = asyncio.Event()
            if not self.inside:
                self._empty.set()
        try:
            async with asyncio.timeout(limit_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True


class Occupied:
    """One call inside of several places, for as long as the block lasts."""

    __slots__ = ("_places",)

    def __init__(self, places: Sequence[Occupancy]) -> None:
        self._places = places

    def __enter__(self) -> None:
        for place in self._places:
            place.enter()

    def __exit__(self, *_: object) -> None:
        for place in self._places:
            place.leave()
