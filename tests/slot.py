"""A tier of the cache for tests, which does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from polyroute.routing.cache.tier import Entry, Held, Label


class Slot:
    """A tier that is a dictionary, and does as it is told: `error` is raised, `gate` is waited for."""

    shared = False
    location = "nowhere"
    max_bytes = 0
    get_s = 60.0
    put_s = 60.0

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: dict[str, tuple[bytes, Label, float | None]] = {}
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.asked = 0

    async def _turn(self) -> None:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error

    async def start(self) -> None:
        await self._turn()

    def lacks(self, digest: str) -> bool:
        return False

    async def get(self, digest: str) -> bytes | None:
        await self._turn()
        return self.entries[digest][0] if digest in self.entries else None

    async def put(self, entries: Sequence[Entry]) -> Sequence[Exception | None]:
        await self._turn()
        self.entries |= {entry.digest: (entry.content, entry.label, entry.stay_s) for entry in entries}
        return [None] * len(entries)

    async def delete(self, digest: str) -> int:
        await self._turn()
        return int(self.entries.pop(digest, None) is not None)

    async def entries_of(self, model: str) -> int:
        await self._turn()
        return sum(model in ("", label.model) for _, label, _ in self.entries.values())

    async def held(self) -> Held:
        await self._turn()
        return Held(len(self.entries), sum(len(entry) for entry, _, _ in self.entries.values()))

    async def reclaim(self, stale: Callable[[Label, float], bool]) -> int:
        await self._turn()
        gone = [digest for digest, (_, label, _) in self.entries.items() if stale(label, 1e9)]
        for digest in gone:
            del self.entries[digest]
        return len(gone)

    async def close(self) -> None:
        pass
