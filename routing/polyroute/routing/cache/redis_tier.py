"""Answers in a Redis or Valkey that several machines share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from polyroute.routing.cache.frame import BEGINNING_BYTES, header_of
from polyroute.routing.cache.redis_client import PREFIX, Client
from polyroute.routing.cache.redis_reads import Reads
from polyroute.routing.cache.tier import Entry, Held, Label

LONGEST_STAY_S: Final = 7 * 86400.0
"""How long an answer stays that nothing else bounds: Redis may be shared with others, and may not evict."""

_ANSWER: Final = PREFIX + "answer:"
_PAGE: Final = 100
_SCAN_S: Final = 20.0
"""How long a look at all entries may take; what is left over leaves when its time is up."""


# Only what is still as it was seen: another machine may have stored a new answer in its place.
_UNLINK: Final = """
local removed = 0
for i, key in ipairs(KEYS) do
  if redis.call('GETRANGE', key, 0, #ARGV[i] - 1) == ARGV[i] then removed = removed + redis.call('UNLINK', key) end
end
return removed
"""


class RedisTier:
    """Entries in one Redis, no cluster; its own `maxmemory` bounds them. Implements `Tier`.

    Errors are redis-py's. An entry is one value, its label at its beginning.
    """

    name = "redis"
    shared = True
    max_bytes = 0

    def __init__(self, client: Client, location: str, *, get_s: float = 0.1, put_s: float = 1.0) -> None:
        self.location = location
        self.get_s = get_s
        self.put_s = put_s
        self._client = client
        self._reads = Reads(client, lambda: self.get_s)
        self._unlink = client.register_script(_UNLINK)

    def __repr__(self) -> str:
        return f"<RedisTier {self.location}>"

    async def start(self) -> None:
        """Sees whether it is there."""
        await self._client.ping()

    def lacks(self, digest: str) -> bool:
        """Never known without asking: others store there all the time."""
        return False

    async def get(self, digest: str) -> bytes | None:
        """The entry under `digest`; something else than a string of bytes is none."""
        return await self._reads.get(_ANSWER + digest)

    async def put(self, entries: Sequence[Entry]) -> Sequence[Exception | None]:
        """Keeps entries, each for `LONGEST_STAY_S` at most, in one way there and back."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for entry in entries:
                stay_s = LONGEST_STAY_S if entry.stay_s is None else min(entry.stay_s, LONGEST_STAY_S)
                pipeline.set(_ANSWER + entry.digest, entry.content, px=max(1, int(stay_s * 1000)))
            answers = await pipeline.execute(raise_on_error=False)
        return [answer if isinstance(answer, Exception) else None for answer in answers]

    async def delete(self, digest: str) -> int:
        """Removes one entry; returns how many there were."""
        return int(await self._client.unlink(_ANSWER + digest))

    async def entries_of(self, model: str) -> int:
        """How many entries there are: of a model, or of all where it is empty."""
        held = await self._count(self.put_s / 2)
        return held.by_model.get(model, (0, 0))[0] if model else held.entries

    async def held(self) -> Held:
        """What it holds."""
        return await self._count(_SCAN_S)

    async def reclaim(self, stale: Callable[[Label, float], bool]) -> int:
        """Removes the entries whose label is `stale`, and those without one. How long nothing was stored under a label
        is not known here: it is taken for 0."""
        removed = 0
        async for keys, beginnings, _ in self._pages(_SCAN_S):
            gone: dict[bytes, bytes] = {}
            for key, beginning in zip(keys, beginnings, strict=True):
                label = _label(beginning)
                if label is None or stale(label, 0.0):
                    gone[key] = beginning
            if gone:
                removed += int(await self._unlink(keys=list(gone), args=list(gone.values())))
        return removed

    async def close(self) -> None:
        """Closes the client."""
        await self._reads.close()
        await self._client.aclose()

    async def _count(self, limit_s: float) -> Held:
        entries = total = 0
        by_model: dict[str, tuple[int, int]] = {}
        until = time.monotonic() + limit_s
        async for _, beginnings, sizes in self._pages(limit_s):
            for beginning, size in zip(beginnings, sizes, strict=True):
                label = _label(beginning)
                if label is not None:
                    had_entries, had_bytes = by_model.get(label.model, (0, 0))
                    by_model[label.model] = (had_entries + 1, had_bytes + size)
                    entries, total = entries + 1, total + size
        return Held(entries, total, by_model, complete=time.monotonic() < until)

    async def _pages(self, limit_s: float) -> AsyncIterator[tuple[list[bytes], list[bytes], list[int]]]:
        """All entries, some at a time: their keys, beginnings and sizes in bytes. Ends early when time is up."""
        until, cursor = time.monotonic() + limit_s, 0
        while True:
            async with asyncio.timeout(self.put_s):
                cursor, page = await self._page(cursor)
            if page[0]:
                yield page
            if not cursor or time.monotonic() > until:
                return

    async def _page(self, cursor: int) -> tuple[int, tuple[list[bytes], list[bytes], list[int]]]:
        cursor, found = await self._client.scan(cursor, match=_ANSWER + "*", count=_PAGE, _type="STRING")
        keys = [key for key in found if isinstance(key, bytes)]
        if not keys:
            return cursor, ([], [], [])
        async with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.getrange(key, 0, BEGINNING_BYTES - 1)
                pipeline.strlen(key)
            answers = await pipeline.execute()
        return cursor, (keys, answers[::2], answers[1::2])


def _label(beginning: bytes) -> Label | None:
    try:
        return header_of(beginning).label
    except ValueError:
        return None
