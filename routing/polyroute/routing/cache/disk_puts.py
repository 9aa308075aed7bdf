"""Entries written to the disk by one thread: those that are handed over together, by one statement."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple

import diskcache
from diskcache.core import DEFAULT_SETTINGS

from polyroute.routing.cache.disk import DIGEST_BYTES

LARGE_BYTES: Final = DEFAULT_SETTINGS["disk_min_file_size"] - DIGEST_BYTES
"""An entry of that size, which becomes a file of its own, is written alone: a transaction that fails would leave it."""

_INSERT: Final = (
    "INSERT OR IGNORE INTO Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size, mode,"
    " filename, value) VALUES "
)
_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_STATE: Final = (
    "SELECT page_count, (SELECT value FROM Settings WHERE key = 'size'),"
    " EXISTS (SELECT 1 FROM Cache WHERE expire_time < ?) FROM pragma_page_count"
)
_THERE: Final = "SELECT key FROM Cache WHERE store_time <> ? AND raw = 1 AND key IN ({})"


class Put(NamedTuple):
    """An entry to be kept for `stay_s` seconds; None is until there is no room for it."""

    digest: str
    entry: bytes
    tag: str
    stay_s: float | None


class Puts:
    """Writes by `work`, which gets what is to be done with the store and raises what that raises; one go at a time.

    Where entries failed together they are written one by one, so that each fails for nothing but its own sake.
    """

    def __init__(self, work: Callable[[Callable[[diskcache.Cache], bool]], bool]) -> None:
        self._work = work
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers written")
        self._going: asyncio.Future[Sequence[Exception | None]] | None = None

    async def put(self, puts: Sequence[Put]) -> Sequence[Exception | None]:
        """Why each was not kept, in their order. Who stops waiting stops what has not begun.

        Raises `RuntimeError` once it is closed.
        """
        while self._going is not None and not self._going.done():  # a disk that hangs is handed nothing to hold
            await asyncio.wait({self._going})
        given_up = threading.Event()
        self._going = asyncio.wrap_future(self._thread.submit(self._put, puts, given_up))
        try:
            return await asyncio.shield(self._going)
        except asyncio.CancelledError:
            given_up.set()
            raise

    def close(self, last: Callable[[], None]) -> Future[None]:
        """Takes no more; done once what is being written is, and then `last`, in the same thread."""
        closing = self._thread.submit(last)
        self._thread.shutdown(wait=False)
        return closing

    def _put(self, puts: Sequence[Put], given_up: threading.Event) -> Sequence[Exception | None]:
        last = {put.digest: put for put in puts}
        small = [put for put in last.values() if len(put.entry) < LARGE_BYTES]
        if len(small) > 1 and self._put_together(small):
            apart = [put for put in last.values() if len(put.entry) >= LARGE_BYTES]
        else:
            apart = [*last.values()]
        failed: dict[str, Exception] = {}
        for put in apart:
            if given_up.is_set():
                break
            if (error := self._put_one(put)) is not None:
                failed[put.digest] = error
        return [failed.get(put.digest) for put in puts]

    def _put_together(self, puts: Sequence[Put]) -> bool:
        try:
            return self._work(partial(_set_all, puts=puts))
        except Exception:  # noqa: BLE001 - whatever it was, each of them comes to it by itself, or not
            return False

    def _put_one(self, put: Put) -> Exception | None:
        try:
            return None if self._work(partial(_set, put=put)) else OSError("the entry was not stored")
        except Exception as error:  # noqa: BLE001 - it is told
            return error


def _set_all(cache: diskcache.Cache, puts: Sequence[Put]) -> bool:
    """Writes entries by one statement, all or none; what is there already is replaced, as by itself.

    `Cache.set` asks SQLite five times for each entry, and between two of its answers this thread waits for the
    interpreter, with the store locked. One statement is a transaction of its own, and no other process waits for it
    longer than SQLite itself takes.
    """
    now = time.time()
    rows = [value for put in puts for value in _row(cache.disk, put, now)]
    new, kept = cache._sql(_INSERT + ", ".join([_ROW] * len(puts)), rows).rowcount, True
    if new < len(puts):  # before any leave: those that are replaced are the oldest until they are
        entries = {put.digest: put for put in puts}
        there = cache._sql(_THERE.format(", ".join("?" * len(entries))), [now, *entries]).fetchall()
        kept = all(_set(cache, entries[digest]) for (digest,) in there)
    _make_room(cache, now, new)
    return kept


def _make_room(cache: diskcache.Cache, now: float, new: int) -> None:
    """Has as many leave as would have, had so many `new` ones come one by one."""
    ((pages, size, expired),) = cache._sql(_STATE, (now,)).fetchall()
    full = pages * cache._page_size + size >= cache.size_limit
    if not (full or expired):
        return
    with cache._transact() as (sql, cleanup):
        if not full:
            cache._cull(now, sql, cleanup, limit=cache.cull_limit * new)  # what has expired, and nothing else
            return
        for _ in range(new):
            cache._cull(now, sql, cleanup)
            if cache.volume() - _freed(cache) < cache.size_limit:
                return


def _freed(cache: diskcache.Cache) -> int:
    """Bytes of the database that are given back as the transaction ends."""
    ((pages,),) = cache._sql("PRAGMA freelist_count").fetchall()
    return int(pages * cache._page_size)


def _row(disk: diskcache.Disk, put: Put, now: float) -> tuple[object, ...]:
    key, raw = disk.put(put.digest)
    size, mode, filename, value = disk.store(put.entry, False, key=put.digest)
    until = None if put.stay_s is None else now + put.stay_s
    return key, raw, now, until, now, 0, put.tag, size, mode, filename, value


def _set(cache: diskcache.Cache, put: Put) -> bool:
    return bool(cache.set(put.digest, put.entry, expire=put.stay_s, tag=put.tag))
