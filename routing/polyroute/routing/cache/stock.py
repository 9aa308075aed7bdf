"""What a store may hold, as far as this process can tell without asking it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

import diskcache

from polyroute.routing.cache.bloom import Bloom

T = TypeVar("T")

FOLLOWED_S: Final = 0.1
"""How often the store is asked what is new there, in seconds, while many look for something in it."""
TRUSTED_S: Final = 0.2
"""How long what it said is relied on, in seconds: so late may this process find what another one has stored."""
COUNTED_S: Final = 0.5
"""How long looks are counted before it is decided whether to follow, in seconds."""
BUSY: Final = round(COUNTED_S / FOLLOWED_S)
"""How many have to look within `COUNTED_S`: as many as following asks. Where fewer do, the store is asked for each."""
_RENEWED_S: Final = 600.0
"""How long what has left the store is taken for being there."""
_PAGE: Final = 512
_PAUSE_S: Final = 0.002
"""From one page to the next of all there is, so that calls come between."""

# Each is one row: for every one that is fetched, another thread may take the interpreter, and give it back much later.
_EXTENT: Final = "SELECT (SELECT COUNT(*) FROM Cache), rowid, key FROM Cache ORDER BY rowid DESC LIMIT 1"
_PAGED: Final = (
    "SELECT MAX(key), GROUP_CONCAT(key, ' ') FROM"  # noqa: S608 - a number
    f" (SELECT key FROM Cache WHERE key > ? ORDER BY key LIMIT {_PAGE})"
)
# Beside MAX(rowid), `key` is that row's: https://www.sqlite.org/lang_select.html#bareagg
_NEW: Final = (
    "SELECT (SELECT key FROM Cache WHERE rowid = ?1), COUNT(*), MAX(rowid), key, GROUP_CONCAT(key, ' ') FROM"  # noqa: S608
    f" (SELECT rowid, key FROM Cache WHERE rowid > ?1 ORDER BY rowid LIMIT {_PAGE})"
)


class Read(Protocol):
    """Has something done with the store, in a thread. May raise anything."""

    def __call__(self, work: Callable[[diskcache.Cache], T], /) -> Awaitable[T]: ...


class _Row(NamedTuple):
    """A row of the store. A new one comes after all others, unless the last ones have left."""

    rowid: int
    key: str


class _Page(NamedTuple):
    """Keys of the store, and whether there may be more behind the `last` of their rows."""

    keys: list[str]
    last: _Row | None
    full: bool


class Stock:
    """Follows a store that others write to as well, while it pays, and says what is not in it.

    Whatever this process stores is known at once (`add`); what others do, with the next look at the rows behind the
    last one that is known. Where that one is no more, all keys are read again, a page at a time. Used on one event
    loop.
    """

    def __init__(self, read: Read, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._may: Bloom | None = None
        self._last: _Row | None = None
        self._made = 0.0
        self._until = float("-inf")
        self._looks = 0
        self._counted_from = float("-inf")
        self._following: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Stock {self._may!r} {'trusted' if self._clock() < self._until else 'not trusted'}>"

    def lacks(self, digest: str) -> bool:
        """Whether nothing is under `digest` for sure; but for what others have stored in the last `TRUSTED_S`."""
        now = self._clock()
        self._looks += 1
        if now < self._until and self._may is not None:
            return digest not in self._may
        if self._following is None:
            self._follow_if_busy(now)
        return False

    def add(self, digest: str) -> None:
        """Something has been stored under `digest`; told any sooner, it is lost where all is read again meanwhile."""
        if self._may is not None:
            self._may.add(digest)

    def close(self) -> None:
        """Follows no longer."""
        self._until = float("-inf")
        if self._following is not None:
            self._following.cancel()

    def _follow_if_busy(self, now: float) -> None:
        if now - self._counted_from > COUNTED_S:
            self._counted_from, self._looks = now, 1
        elif self._looks >= BUSY:
            self._following = asyncio.create_task(self._follow(), name="following the disk cache")

    async def _follow(self) -> None:
        try:
            while self._looks >= BUSY:
                self._looks = 0
                for _ in range(BUSY):
                    begun = self._clock()
                    if await self.catch_up():
                        self._until = begun + TRUSTED_S
                    await asyncio.sleep(FOLLOWED_S)
        except Exception:  # noqa: BLE001 - whatever is wrong with the store, those who ask it hear
            await asyncio.sleep(FOLLOWED_S)
        finally:
            self._following = None

    async def catch_up(self) -> bool:
        """Takes up what was stored since it was done last; False where all has to be read again.

        Raises what `read` does.
        """
        if self._may is None or self._may.full or self._clock() - self._made > _RENEWED_S:
            await self._take_all()
        while (page := await self._read(partial(_new, self._last))) is not None:
            self._take(page.keys)
            self._last = page.last
            if not page.full:
                return True
        self._may = None
        return False

    async def _take_all(self) -> None:
        self._until = float("-inf")
        count, self._last = await self._read(_extent)
        self._may, self._made = Bloom(2 * count), self._clock()
        after = ""
        try:
            while page := await self._read(partial(_paged, after)):
                after, keys = page
                self._take(keys)
                await asyncio.sleep(_PAUSE_S)
        except BaseException:
            self._may = None  # a part of all there is says nothing of the rest
            raise

    def _take(self, keys: list[str]) -> None:
        """Adds what is not known; most is, where this process stores the most."""
        if (may := self._may) is not None:
            for key in keys:
                if key not in may:
                    may.add(key)


def _extent(cache: diskcache.Cache) -> tuple[int, _Row | None]:
    """How many rows there are, and the last of them."""
    rows = cache._sql(_EXTENT).fetchall()
    if not rows:
        return 0, None
    ((count, *last),) = rows
    return count, _Row(*last)


def _paged(after: str, cache: diskcache.Cache) -> tuple[str, list[str]] | None:
    """The keys after that one, a page at most, and the last of them; None where there are none."""
    ((last, keys),) = cache._sql(_PAGED, (after,)).fetchall()
    return None if keys is None else (last, keys.split(" "))


def _new(last: _Row | None, cache: diskcache.Cache) -> _Page | None:
    """The rows behind the `last` one, a page at most; None where that one is there no more."""
    ((there, count, rowid, key, keys),) = cache._sql(_NEW, (0 if last is None else last.rowid,)).fetchall()
    if last is not None and there != last.key:
        return None
    return _Page(keys.split(" "), _Row(rowid, key), count == _PAGE) if count else _Page([], last, full=False)
