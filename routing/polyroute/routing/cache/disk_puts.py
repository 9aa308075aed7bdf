"""Entries on their way to the disk, written by one thread: those that wait together, in one transaction."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import diskcache
from diskcache.core import DEFAULT_SETTINGS

from polyroute.routing.cache.disk import DIGEST_BYTES

MOST_TOGETHER: Final = 64
"""Most entries in one transaction, for the length of which no other process can write."""
LARGE_BYTES: Final = DEFAULT_SETTINGS["disk_min_file_size"] - DIGEST_BYTES
"""An entry of that size, which becomes a file of its own, is written alone: a transaction that fails would leave it."""
REST_S: Final = 0.01
"""Least time from one transaction to the next, in seconds: each costs as much as some six of its entries."""

_THERE: Final = "SELECT key FROM Cache WHERE raw = 1 AND key IN ({})"
_INSERT: Final = (
    "INSERT INTO Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Put:
    """An entry to be kept for `stay_s` seconds; None is until there is no room for it."""

    digest: str
    entry: bytes
    tag: str
    stay_s: float | None


_Waiting: TypeAlias = tuple[Put, "asyncio.Future[bool]"]
"""An entry, and what is to be told of it."""


class Puts:
    """Writes by `work`, which gets what is to be done with the store and raises what that raises.

    The first entry goes at once, and those that come while it is written, or within `REST_S` of it, go together after
    it. Where entries failed together they are written one by one, so that each fails for nothing but its own sake.
    """

    def __init__(self, work: Callable[[Callable[[diskcache.Cache], bool]], bool]) -> None:
        self._work = work
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers written")
        self._waiting: deque[_Waiting] = deque()
        self._writing: list[_Waiting] = []
        self._apart: deque[_Waiting] = deque()  # have failed together, and go before all others
        self._rested = float("-inf")  # on the loop's clock
        self._rest: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._writing) + len(self._apart)

    def put(self, put: Put) -> asyncio.Future[bool]:
        """Whether it was kept, once it is written; holds what was raised instead. Who stops waiting stops nothing."""
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((put, kept))
        self._write()
        return kept

    def close(self, last: Callable[[], None]) -> Future[None]:
        """Takes no more; done once what is being written is, and then `last`, in the same thread."""
        closing = self._thread.submit(last)
        self._thread.shutdown(wait=False)
        return closing

    def _write(self) -> None:
        while self._apart and self._apart[0][1].done():  # nobody waits for it any more
            self._apart.popleft()
        if self._writing or not (self._apart or self._waiting):
            return
        if self._apart:
            self._writing = [self._apart.popleft()]
        elif self._may_go():
            self._writing = _next_together(self._waiting)
        else:
            return
        work = partial(_set_all, puts=[put for put, _ in self._writing])
        try:
            written = asyncio.wrap_future(self._thread.submit(self._work, work))
        except RuntimeError as error:  # closed
            self._over(error)
        else:
            written.add_done_callback(self._written)

    def _may_go(self) -> bool:
        """Whether it is time for a transaction; where it is not, it will be tried again."""
        if self._rest is not None and len(self._waiting) < MOST_TOGETHER:
            return False
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now < self._rested and len(self._waiting) < MOST_TOGETHER:
            self._rest = loop.call_at(self._rested, self._go_on)
            return False
        self._rested = now + REST_S
        return True

    def _go_on(self) -> None:
        self._rest = None
        self._write()

    def _written(self, written: asyncio.Future[bool]) -> None:
        if written.cancelled():
            self._over(RuntimeError("the store is closed"))
            return
        error = written.exception()
        if len(self._writing) > 1 and (error is not None or not written.result()):
            self._apart.extend(self._writing)
            self._writing = []
            self._write()
            return
        self._over(written.result() if error is None else error)

    def _over(self, outcome: bool | BaseException) -> None:
        done, self._writing = self._writing, []
        for _, kept in done:
            if kept.done():
                continue
            if isinstance(outcome, BaseException):
                kept.set_exception(outcome)
                kept.exception()  # nobody may be left to ask
            else:
                kept.set_result(outcome)
        self._write()


def _next_together(waiting: deque[_Waiting]) -> list[_Waiting]:
    """Takes the first, and those behind it that may be written with it."""
    together = [waiting.popleft()]
    if len(together[0][0].entry) < LARGE_BYTES:
        while waiting and len(together) < MOST_TOGETHER and len(waiting[0][0].entry) < LARGE_BYTES:
            together.append(waiting.popleft())
    return together


def _set_all(cache: diskcache.Cache, puts: Sequence[Put]) -> bool:
    """Writes entries in one transaction; what is there already is replaced, as by itself.

    `Cache.set` asks SQLite five times for each entry, and each time the other threads wait for the interpreter. Here
    the same is asked once for all: which are there, the new ones in, and as many out as one by one would have gone.
    """
    if len(puts) == 1:
        return _set(cache, puts[0])
    entries = {put.digest: put for put in puts}
    with cache._transact() as (sql, cleanup):
        there = {digest for (digest,) in sql(_THERE.format(", ".join("?" * len(entries))), [*entries])}
        now = time.time()
        new = [_row(cache.disk, put, now) for digest, put in entries.items() if digest not in there]
        cache._con.executemany(_INSERT, new)
        cache._cull(now, sql, cleanup, limit=cache.cull_limit * len(new))
        return all(_set(cache, entries[digest]) for digest in there)


def _row(disk: diskcache.Disk, put: Put, now: float) -> tuple[object, ...]:
    key, raw = disk.put(put.digest)
    size, mode, filename, value = disk.store(put.entry, False, key=put.digest)
    until = None if put.stay_s is None else now + put.stay_s
    return key, raw, now, until, now, 0, put.tag, size, mode, filename, value


def _set(cache: diskcache.Cache, put: Put) -> bool:
    return bool(cache.set(put.digest, put.entry, expire=put.stay_s, tag=put.tag))
