"""Keeps what experiments leave: records in batches behind the calls, feedback as it comes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final

import structlog
from sqlalchemy import Connection

from polyroute.core.errors import StateUnavailable
from polyroute.routing.experiments.database import Database, refused
from polyroute.routing.experiments.records import CallRecord, Rater
from polyroute.routing.experiments.shadow.pair import Pair
from polyroute.routing.experiments.store import (
    SUMS_OUTLIVE,
    Feedback,
    Rating,
    add_feedback,
    add_pairs,
    add_records,
    forget,
    recorded_routes,
    unrated,
)
from polyroute.routing.metrics import Metrics

MOST_WAITING: Final = 16_384
"""Records that may wait to be written, some 10 MB; what comes beyond them is dropped and counted."""

BATCH: Final = 256
"""Most records that one transaction holds."""

_PAUSE_S: Final = 0.1
"""How long records gather before they are written."""

_RETRY_S: Final = 2.0
_CLOSE_S: Final = 5.0
_SWEEP_S: Final = 3600.0

log = structlog.get_logger(__name__)


class Journal:
    """Writes to the state database, and never delays a call for it. `retention_s` is how long records are kept.

    Implements `polyroute.routing.experiments.records.Recorder`, and for pairs of calls and copies
    `polyroute.routing.experiments.shadow.shadows.PairRecorder`. While the database cannot be used, records wait, and
    those that find no room any more are dropped. `rater` is told of feedback.
    """

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        retention_s: float,
        *,
        rater: Rater | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.database = database
        self.retention_s = retention_s
        self._metrics = metrics
        self._rater = rater
        self._now = now
        self._waiting: deque[CallRecord | Pair] = deque()
        self._arrived = asyncio.Event()
        self._flushing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        metrics.watch_records(lambda: len(self._waiting))

    def __repr__(self) -> str:
        return f"<Journal {self.database!r} {len(self._waiting)} waiting>"

    def recorded(self, record: CallRecord) -> None:
        """A call has ended: its record is written soon, or dropped where too many wait."""
        self._add(record)

    def paired(self, pair: Pair) -> None:
        """A call and its copy are over: the same for the pair."""
        self._add(pair)

    def _add(self, record: CallRecord | Pair) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._metrics.record_kept("dropped")
            return
        self._waiting.append(record)
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._write_on(), name="experiment records")]
            self._tasks.append(asyncio.create_task(self._sweep_on(), name="experiment retention"))
        self._arrived.set()

    async def feedback(self, given: Feedback) -> bool:
        """Keeps feedback, and says whether a record of its request is there. Raises `StateUnavailable`."""
        await self.flush()
        matched, ratings = await self.database.write(partial(_tell, given=given))
        self._told(ratings)
        return matched

    async def flush(self) -> None:
        """Writes the records that wait. Raises `StateUnavailable`.

        What has begun goes on where the one who waits for it leaves: a batch that is committed and yet thought to be
        waiting would be written twice.
        """
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush(), name="experiment flush")
        await asyncio.shield(self._flushing)

    async def _flush(self) -> None:
        while self._waiting:
            batch = list(islice(self._waiting, BATCH))
            written = await self._written(batch)
            for _ in batch:
                self._waiting.popleft()
            self._metrics.record_kept("written", written)
            self._metrics.record_kept("dropped", len(batch) - written)

    async def _written(self, batch: Sequence[CallRecord | Pair]) -> int:
        """Writes a batch, but for what the database cannot hold, and says how many that is."""
        try:
            ratings = await self.database.write(partial(_write, batch=batch))
        except StateUnavailable as error:
            if not refused(error):
                raise
            if len(batch) == 1:
                log.error("record.refused", request_id=batch[0].request_id, error=error.message)
                return 0
            return sum([await self._written([one]) for one in batch])
        self._told(ratings)
        return len(batch)

    async def sweep(self) -> None:
        """Removes what has been kept for long enough. Raises `StateUnavailable`."""
        now = self._now()
        before, sums_before = now - self.retention_s, now - SUMS_OUTLIVE * self.retention_s
        routes = await self.database.read(recorded_routes)
        work = partial(forget, routes=routes, before=before, sums_before=sums_before)
        more = True
        while more:
            more = await self.database.write(work)
            await asyncio.sleep(_PAUSE_S if more else 0)  # those who write have their turns in between

    async def close(self) -> None:
        """Writes what waits, for 5 seconds at most, and closes the database."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self.flush()
        except (StateUnavailable, TimeoutError) as error:
            log.warning("records.lost", records=len(self._waiting), error=str(error))
            self._metrics.record_kept("dropped", len(self._waiting))
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self.database.close()

    def _told(self, ratings: Sequence[Rating]) -> None:
        if self._rater is not None:
            for rating in ratings:
                self._rater.rated(*rating)

    async def _write_on(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await asyncio.sleep(_PAUSE_S)
            try:
                await self.flush()
            except StateUnavailable as error:
                log.warning("records.waiting", records=len(self._waiting), limit=MOST_WAITING, error=error.message)
                await asyncio.sleep(_RETRY_S)
                self._arrived.set()

    async def _sweep_on(self) -> None:
        while True:
            try:
                await self.sweep()
            except StateUnavailable as error:
                log.warning("records.not_swept", error=error.message)
            await asyncio.sleep(_SWEEP_S)


def _tell(connection: Connection, given: Feedback) -> tuple[bool, Sequence[Rating]]:
    record = unrated(connection, given)
    matched = add_feedback(connection, given)
    return matched, () if record is None else ((record, given.metric, given.value),)


def _write(connection: Connection, batch: Sequence[CallRecord | Pair]) -> Sequence[Rating]:
    records = [one for one in batch if isinstance(one, CallRecord)]
    pairs = [one for one in batch if isinstance(one, Pair)]
    ratings = add_records(connection, records) if records else ()
    if pairs:
        add_pairs(connection, pairs)
    return ratings
