"""Answers on disk: bounded in size, shared between processes, and off the event loop."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import diskcache
import structlog
from diskcache.core import DEFAULT_SETTINGS, METADATA

from polyroute.routing.cache.disk import BytesDisk, ForeignEntry
from polyroute.routing.cache.disk_labels import held, reclaim, tag_of
from polyroute.routing.cache.disk_puts import Put, Puts
from polyroute.routing.cache.invalidation_log import locked
from polyroute.routing.cache.stock import Stock
from polyroute.routing.cache.tier import BadEntry, Entry, Held, Label
from polyroute.routing.cache.together import Together

T = TypeVar("T")

_CLOSE_S: Final = 5.0
_THREADS: Final = 2
_MOST_PENDING: Final = 256
_MOST_TOGETHER: Final = 64
"""Most entries that are read in one transaction."""

_SETTINGS: Final[Mapping[str, Any]] = {
    **DEFAULT_SETTINGS,
    "eviction_policy": "least-recently-stored",
    "tag_index": 1,
    # A file that is mapped and then cut by someone else would end this process (SIGBUS): so neither the database is
    # mapped, nor is there a write-ahead log, whose index always is.
    "sqlite_mmap_size": 0,
    "sqlite_cache_size": 1024,  # pages of 4 KiB, for each thread; more make nothing faster: the system keeps them too
    "sqlite_journal_mode": "persist",
    "sqlite_synchronous": 0,  # what a machine that loses power may spoil is found out, and is only a cache
}

_UNDER: Final = (
    "SELECT key, mode, filename, value FROM Cache"
    " WHERE raw = 1 AND key IN ({}) AND (expire_time IS NULL OR expire_time > ?)"
)
_FOREIGN_SCHEMA: Final = ("no such table", "no such column", "has no column named", "values were supplied")

log = structlog.get_logger(__name__)


class _Foreign(Exception):
    """The database is none of this store's."""


class Busy(Exception):
    """The disk is behind: too much waits for it already."""


class DiskTier:
    """Entries in one folder, `max_bytes` at most; the least recently stored leave first, ten with each that is stored.
    Implements `Tier`.

    Errors are diskcache's, SQLite's and the system's. Whatever was wrong, the next call finds the folder as it is then:
    one that cannot be opened is opened again, one that was replaced is followed, and one whose database is none is
    removed and begun anew.
    """

    name = "disk"
    shared = False

    def __init__(self, folder: Path, max_bytes: int, *, get_s: float = 0.25, put_s: float = 2.0) -> None:
        self.folder = folder
        self.location = str(folder)
        self.max_bytes = max_bytes
        self.get_s = get_s
        self.put_s = put_s
        self._database = str(folder / "cache.db")
        self._cache: diskcache.Cache | None = None
        self._identity = (0, 0)
        """Which database was opened, or could not be."""
        self._pending = 0
        self._opening = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="answers")
        self._puts = Puts(self._work)
        self._reads: Together[str, bytes | None] = Together(self._read_together, _MOST_TOGETHER, "answers read")
        self._stock = Stock(self._run)

    def __repr__(self) -> str:
        state = "open" if self._cache is not None else "not open"
        return f"<DiskTier {self.folder} {state} pending={self._waiting}>"

    async def start(self) -> None:
        """Opens the folder, so that the first call finds it open."""
        await self._run(lambda _: None)

    def lacks(self, digest: str) -> bool:
        """Whether there is no entry under `digest`, as far as this process can know; see `Stock`."""
        return self._stock.lacks(digest)

    async def get(self, digest: str) -> bytes | None:
        """The entry under `digest`; raises `BadEntry` for one that this store did not write, or not like that."""
        self._admit()
        try:
            return await self._reads.ask(digest)
        except ForeignEntry as error:
            raise BadEntry(str(error)) from error

    async def put(self, entries: Sequence[Entry]) -> Sequence[Exception | None]:
        """Keeps entries, those that are small in one transaction; what goes wrong with one concerns no other."""
        try:
            return await self._puts.put([Put(e.digest, e.content, tag_of(e.label), e.stay_s) for e in entries])
        finally:
            for entry in entries:
                self._stock.add(entry.digest)

    async def delete(self, digest: str) -> int:
        """Removes one entry; returns how many there were."""
        return await self._run(lambda cache: int(cache.delete(digest)))

    async def entries_of(self, model: str) -> int:
        """How many entries there are: of a model, or of all where it is empty."""
        held = await self.held()
        return held.by_model.get(model, (0, 0))[0] if model else held.entries

    async def held(self) -> Held:
        """What it holds. `bytes` are those of the whole folder."""
        return await self._run(held)

    async def reclaim(self, stale: Callable[[Label, float], bool]) -> int:
        """Removes the entries whose label is `stale`, and those without one."""
        return await self._run(partial(reclaim, stale=stale))

    async def close(self) -> None:
        """Closes the folder once what is being written is written; does not wait for a disk that hangs."""
        self._stock.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._reads.settled()
        both = threading.Barrier(_THREADS)
        try:
            closing = [asyncio.wrap_future(self._threads.submit(self._close, both)) for _ in range(_THREADS)]
            closing += [asyncio.wrap_future(kind.close(self._let_go)) for kind in (self._reads, self._puts)]
        except RuntimeError:  # closed before
            return
        await asyncio.wait(closing, timeout=_CLOSE_S)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _close(self, both: threading.Barrier) -> None:
        """Each thread has a connection of its own, which it alone can close."""
        with suppress(threading.BrokenBarrierError):
            both.wait(_CLOSE_S)
        self._let_go()

    def _let_go(self) -> None:
        if self._cache is not None:
            self._cache.close()

    @property
    def _waiting(self) -> int:
        return self._pending + len(self._reads)

    def _admit(self) -> None:
        if self._waiting >= _MOST_PENDING:
            raise Busy(f"{self._waiting} operations wait for the disk, limit {_MOST_PENDING}")

    async def _run(self, work: Callable[[diskcache.Cache], T]) -> T:
        self._admit()
        done = self._threads.submit(self._work, work)
        self._pending += 1
        done.add_done_callback(partial(self._returned, asyncio.get_running_loop()))
        waiting = asyncio.wrap_future(done)
        waiting.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody may be left to ask
        return await asyncio.shield(waiting)

    def _read_together(self, digests: Sequence[str]) -> Sequence[bytes | Exception | None]:
        return self._work(lambda cache: _get_all(cache, digests))

    def _work(self, work: Callable[[diskcache.Cache], T]) -> T:
        try:
            return work(self._open())
        except (sqlite3.DatabaseError, _Foreign) as error:
            if isinstance(error, _Foreign) or _broken(error):
                self._begin_anew(error)
            raise

    def _open(self) -> diskcache.Cache:
        with self._opening:
            identity = self._there()
            if self._cache is None or identity != self._identity:
                self._cache, self._identity = None, identity
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what was asked is nobody else's business
                self._cache = _opened(self.folder)
                self._identity = self._there()
            self._cache.size_limit = self.max_bytes  # which may have changed since; each process has its own
            return self._cache

    def _there(self) -> tuple[int, int]:
        """Device and inode of the database; zeros where there is none."""
        try:
            found = os.stat(self._database)
        except OSError:
            return 0, 0
        return found.st_dev, found.st_ino

    def _begin_anew(self, error: Exception) -> None:
        """Removes the folder, unless another process has done so already."""
        with self._opening, locked(self.folder):
            if self._there() != self._identity:
                return
            self._cache = None
            aside = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=f"{self.folder.name}.damaged-"))
            self.folder.rename(aside / self.folder.name)
        log.warning("cache.begun_anew", folder=str(self.folder), error=str(error), effect="what it held is gone")
        shutil.rmtree(aside, ignore_errors=True)

    def _returned(self, loop: asyncio.AbstractEventLoop, _: Future[Any]) -> None:
        try:
            loop.call_soon_threadsafe(self._count_down)
        except RuntimeError:
            self._count_down()  # the loop has ended, and so has everything that counted

    def _count_down(self) -> None:
        self._pending -= 1


def _get_all(cache: diskcache.Cache, digests: Sequence[str]) -> Sequence[bytes | Exception | None]:
    """As `Cache.get` reads each, but all at once: each time that SQLite is asked, other threads run meanwhile."""
    asked = _UNDER.format(", ".join("?" * len(digests)))
    keys = [cache.disk.put(digest)[0] for digest in digests]
    rows = cache._sql(asked, (*keys, time.time())).fetchall()
    found = {digest: _fetched(cache.disk, *row) for digest, *row in rows}
    return [found.get(digest) for digest in digests]


def _fetched(disk: diskcache.Disk, mode: object, filename: object, value: object) -> bytes | Exception | None:
    try:
        entry: bytes = disk.fetch(mode, filename, value, False)
    except ForeignEntry as error:  # the entry's own; any other error is the store's
        return error
    except OSError:  # its file has gone since
        return None
    return entry


def _opened(folder: Path) -> diskcache.Cache:
    """The store in `folder`, by our settings: diskcache would take up those that stand there, and any attribute."""
    try:
        cache = diskcache.Cache(str(folder), timeout=1, disk=BytesDisk, **_SETTINGS)
        foreign = {key for (key,) in cache._sql("SELECT key FROM Settings")} - _SETTINGS.keys() - METADATA.keys()
    except (TypeError, ValueError, AttributeError, sqlite3.ProgrammingError) as error:
        raise _Foreign(f"its settings are none of this store's: {error}") from error
    if foreign:
        cache.close()
        raise _Foreign(f"its settings are none of this store's: {min(map(str, foreign))}")
    return cache


def _broken(error: sqlite3.DatabaseError) -> bool:
    """Whether a database is none any more, or none of ours."""
    if error.sqlite_errorcode == sqlite3.SQLITE_IOERR_SHORT_READ:
        return True
    if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return True
    return any(words in str(error) for words in _FOREIGN_SCHEMA)
