"""Answers on disk: bounded in size, shared between processes, off the event loop, and never a reason to fail."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import diskcache
import structlog

from polyroute.routing.cache.disk import BytesDisk
from polyroute.routing.views import TierStats

T = TypeVar("T")

_ADMIN_S: Final = 30.0
_CLOSE_S: Final = 5.0
_THREADS: Final = 2
_REOPEN_S: Final = 30.0
_WARN_EVERY_S: Final = 30.0
_MOST_PENDING: Final = 256

log = structlog.get_logger(__name__)


class AnswerStore:
    """Bytes by key in one folder, `max_bytes` at most; the least recently stored leave first.

    Every operation has a short time limit and is a miss when it fails, whatever the reason. A folder that cannot be
    opened is tried again later.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        *,
        get_timeout_s: float = 0.25,
        put_timeout_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self.errors = 0
        self._get_timeout_s = get_timeout_s
        self._put_timeout_s = put_timeout_s
        self._clock = clock
        self._cache: diskcache.Cache | None = None
        self._closed_until = 0.0
        self._warned = float("-inf")
        self._pending = 0
        self._opening = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="answers")

    def __repr__(self) -> str:
        return f"<AnswerStore {self.folder} hits={self.hits} misses={self.misses} errors={self.errors}>"

    async def start(self) -> None:
        """Opens the folder, so that the first call finds it open. A folder that cannot be opened is no error here."""
        await self._run("open", _ADMIN_S, lambda _: None, None)

    async def get(self, key: str) -> bytes | None:
        """The bytes under `key`; None when there are none, or on any failure."""
        blob = await self._run("get", self._get_timeout_s, lambda cache: cache.get(key), None)
        if isinstance(blob, bytes):
            self.hits += 1
            return blob
        self.misses += 1
        return None

    async def put(self, key: str, blob: bytes, *, tag: str, ttl_s: float | None) -> bool:
        """Keeps `blob` under `key`, found again by `tag` when that is cleared; says whether it was kept."""
        return await self._run(
            "set", self._put_timeout_s, lambda c: bool(c.set(key, blob, expire=ttl_s, tag=tag)), False
        )

    async def delete(self, key: str) -> int:
        """Removes one entry; returns how many there were."""
        return await self._run("delete", self._put_timeout_s, lambda cache: int(cache.delete(key)), 0)

    async def clear(self, tag: str = "") -> int:
        """Removes the entries of `tag`, or all; returns how many there were."""
        work: Callable[[diskcache.Cache], int] = (lambda c: int(c.evict(tag))) if tag else (lambda c: int(c.clear()))
        return await self._run("clear", _ADMIN_S, work, 0)

    async def stats(self) -> TierStats:
        """What it holds, and what it did since the server started."""
        entries, size = await self._run("stats", _ADMIN_S, lambda cache: (len(cache), int(cache.volume())), (0, 0))
        return TierStats(
            name="disk",
            location=str(self.folder),
            entries=entries,
            bytes=size,
            max_bytes=self.max_bytes,
            hits=self.hits,
            misses=self.misses,
            errors=self.errors,
        )

    async def close(self) -> None:
        """Closes the folder once what is being written is written; does not wait for a disk that hangs."""
        both = threading.Barrier(_THREADS)
        try:
            closing = [asyncio.wrap_future(self._threads.submit(self._close, both)) for _ in range(_THREADS)]
        except RuntimeError:  # closed before
            return
        await asyncio.wait(closing, timeout=_CLOSE_S)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _close(self, both: threading.Barrier) -> None:
        """Each thread has a connection of its own, which it alone can close."""
        with suppress(threading.BrokenBarrierError):
            both.wait(_CLOSE_S)
        if self._cache is not None:
            self._cache.close()

    async def _run(self, what: str, limit_s: float, work: Callable[[diskcache.Cache], T], otherwise: T) -> T:
        if self._pending >= _MOST_PENDING or (self._cache is None and self._clock() < self._closed_until):
            self.errors += 1
            return otherwise
        try:
            done = self._threads.submit(self._work, work)
        except RuntimeError:  # closed
            self.errors += 1
            return otherwise
        self._pending += 1
        done.add_done_callback(partial(self._returned, asyncio.get_running_loop()))
        waiting = asyncio.wrap_future(done)
        waiting.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody may be left to ask
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), limit_s)
        except TimeoutError:
            self._failed(what, f"took longer than {limit_s:g} s")
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a cache is a miss
            self._failed(what, f"{type(error).__name__}: {error}")
        return otherwise

    def _work(self, work: Callable[[diskcache.Cache], T]) -> T:
        return work(self._open())

    def _open(self) -> diskcache.Cache:
        with self._opening:
            if self._cache is None:
                try:
                    self._cache = diskcache.Cache(
                        str(self.folder),
                        timeout=1,
                        disk=BytesDisk,
                        eviction_policy="least-recently-stored",
                        size_limit=self.max_bytes,
                        tag_index=True,
                    )
                except Exception:
                    self._closed_until = self._clock() + _REOPEN_S
                    raise
            return self._cache

    def _returned(self, loop: asyncio.AbstractEventLoop, _: Future[Any]) -> None:
        try:
            loop.call_soon_threadsafe(self._count_down)
        except RuntimeError:
            self._count_down()  # the loop has ended, and so has everything that counted

    def _count_down(self) -> None:
        self._pending -= 1

    def _failed(self, what: str, why: str) -> None:
        self.errors += 1
        if self._clock() - self._warned >= _WARN_EVERY_S:
            self._warned = self._clock()
            log.warning("cache.failed", operation=what, folder=str(self.folder), error=why, effect="a miss")
