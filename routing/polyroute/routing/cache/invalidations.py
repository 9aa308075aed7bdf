"""What may be found and kept no more, as this process knows it: what it invalidated itself, and what others did."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from polyroute.routing.cache.invalidation_log import Damaged, InvalidationLog, Kind, Record, name_of
from polyroute.routing.cache.terms import AnswerKey, Moment

NOBODY: Final = bytes(32)
"""The name in records that are about no single model or answer."""

_MOST_FORGOTTEN: Final = 1024

log = structlog.get_logger(__name__)


class Invalidations:
    """Follows the file at `path` that all processes of a machine share; None is this process alone.

    Asking (`moment`, `holds`) never waits, and knows at once what any process has told. While the file cannot be had,
    what this process tells is in force here, and goes into the file later; what others stored is out of reach. All is
    for the event loop's thread, but for what `moments` gives.
    """

    def __init__(self, path: Path | None = None, *, wall: Callable[[], float] = time.time) -> None:
        self.durable = False
        """Whether what is known is what the file says."""
        self.forgotten: Callable[[str], object] = lambda digest: None
        """Told of each single answer that is invalidated, by its digest."""
        self._wall = wall
        self._log = None if path is None else InvalidationLog(path)
        self._mark = b""
        self._known = 0
        self._sequence = 0
        self._latest = 0
        self._times: dict[tuple[Kind, bytes], tuple[int, int]] = {}
        self._moments: dict[str, Moment] = {}
        self._forgets: OrderedDict[str, int] = OrderedDict()
        self._floor = 0
        self._looked_in: asyncio.AbstractEventLoop | None = None
        self._unwritten: list[tuple[Kind, bytes]] = []
        self._warned = False
        self._apply([Record(Kind.BEGIN, NOBODY, 0 if path is None else int(wall() * 1e6), 0)])

    def __repr__(self) -> str:
        return f"<Invalidations {self._log!r} known={self._known} durable={self.durable}>"

    @property
    def trusted(self) -> bool:
        """Whether what is known is all there is to know on this machine."""
        return self.durable or self._log is None

    def moment(self, model: str) -> Moment:
        """What has been invalidated by now, as a call for `model` sees it."""
        self._look_once()
        moment = self._moments.get(model)
        if moment is None:
            moment = self._moments[model] = _moment(self._times, self._sequence, model)
        return moment

    def moments(self) -> Callable[[str], Moment]:
        """What `moment` says now, of any model; may be asked in other threads, which must not take up news."""
        self._look_once()
        return partial(_moment, dict(self._times), self._sequence)

    def holds(self, key: AnswerKey, model: str) -> bool:
        """Whether nothing has made the key's answer unreachable since its call began."""
        now = self.moment(model)
        return now.sequence == key.moment.sequence or (
            now[:2] == key.moment[:2] and max(self._floor, self._forgets.get(key.digest, 0)) <= key.moment.sequence
        )

    def forgot(self, digest: str, created: float, *, shared: bool) -> bool:
        """Whether the answer with that digest which was made at `created` (Unix time, in seconds) was invalidated by
        itself: on this machine, or as all machines count that are `shared` with."""
        times = self._times.get((Kind.ENTRY, bytes.fromhex(digest)), (0, 0))
        return times[shared] > created * 1e6

    def shared(self) -> Mapping[tuple[Kind, bytes], int]:
        """What machines tell each other of, by kind and name, each with its time in microseconds."""
        return {key: shared for key, (_, shared) in self._times.items() if shared}

    async def invalidate(self, model: str = "") -> Record:
        """Makes the answers of a model unreachable, or all there are."""
        return await self._tell(Kind.MODEL if model else Kind.ALL, name_of(model) if model else NOBODY)

    async def forget(self, digest: str) -> Record:
        """Makes one answer unreachable."""
        return await self._tell(Kind.ENTRY, bytes.fromhex(digest))

    async def heard(self, kind: Kind, name: bytes, shared: int) -> bool:
        """Another machine has invalidated something. False, and nothing happens, where that is known here already."""
        self._look()
        if self._times.get((kind, name), (0, 0))[1] >= shared:
            return False
        if not await self._append(kind, name, shared):
            self._apply([self._next(kind, name, shared)])
        return True

    async def tend(self) -> None:
        """Opens the file where it is not open, or not the one that is there any more; to be called now and then."""
        if self._log is None:
            return
        if self.durable and self._log.identity() != await asyncio.to_thread(self._log.identity_there):
            self.durable = False
        if not self.durable:
            try:
                await asyncio.to_thread(self._log.make, self._wall)
            except OSError as error:
                self._alone(error)
                return
            self._reopen()
        while self._unwritten and await self._append(*self._unwritten[0]):
            self._unwritten.pop(0)

    def close(self) -> None:
        """Closes the file."""
        self.durable = False
        if self._log is not None:
            self._log.close()

    async def _tell(self, kind: Kind, name: bytes) -> Record:
        if not await self._append(kind, name):
            if self._log is not None:
                self._unwritten.append((kind, name))
            self._apply([self._next(kind, name)])
        local, shared = self._times[kind, name]
        return Record(kind, name, local, shared)

    async def _append(self, kind: Kind, name: bytes, shared: int | None = None) -> bool:
        """Adds to the file and takes it up from there; says whether that could be done."""
        if self._log is None or not self.durable:
            return False
        try:
            await asyncio.to_thread(partial(self._log.append, kind, name, self._wall, shared))
        except OSError as error:
            self._alone(error)
            return False
        self._look()
        return self.durable and (kind, name) in self._times

    def _look_once(self) -> None:
        """Looks, unless that was done in this turn of the event loop.

        What runs in one turn was on its way before the turn began: nobody who heard that something is invalidated can
        have asked anything since.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._look()
            return
        if self._looked_in is not loop:
            self._look()
            self._looked_in = loop
            loop.call_soon(self._turned)

    def _turned(self) -> None:
        self._looked_in = None

    def _look(self) -> None:
        """Takes up what has been appended since; costs about a microsecond where nothing was."""
        if self._log is None or not self.durable:
            return
        try:
            mark = self._log.mark()
            if mark == self._mark:
                return
            records = self._log.after(self._known)
        except (OSError, Damaged):
            self._reopen()
            return
        self._mark = mark
        self._known += len(records)
        self._apply(records)

    def _reopen(self) -> None:
        """Takes up the file that is there, from its beginning; without one, this process is alone for now."""
        if self._log is None:
            return
        try:
            self._log.reopen()
            self._mark = self._log.mark()  # before they are read: what comes in between changes it
            records = self._log.after(0)
        except (OSError, Damaged) as error:
            self.durable = False
            self._alone(error)
            return
        self.durable, self._warned = True, False
        self._known = len(records)
        self._times.clear()
        self._apply(records)
        self._apply([self._next(kind, name) for kind, name in self._unwritten])

    def _alone(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            log.warning("cache.invalidation_alone", error=str(error), effect="in force in this process, until it works")

    def _next(self, kind: Kind, name: bytes, shared: int | None = None) -> Record:
        local = max(int(self._wall() * 1e6), self._latest + 1)
        return Record(kind, name, local, local if shared is None else shared)

    def _apply(self, records: Iterable[Record]) -> None:
        for record in records:
            self._sequence += 1
            self._latest = max(self._latest, record.local, record.shared)
            if record.kind is Kind.ENTRY:
                self._forget(record.name.hex())
            local, shared = self._times.get((record.kind, record.name), (0, 0))
            mine = 0 if record.kind is Kind.SHARED else record.local
            self._times[record.kind, record.name] = (max(local, mine), max(shared, record.shared))
        self._moments.clear()

    def _forget(self, digest: str) -> None:
        self._forgets[digest] = self._sequence
        self._forgets.move_to_end(digest)
        if len(self._forgets) > _MOST_FORGOTTEN:
            _, self._floor = self._forgets.popitem(last=False)
        self.forgotten(digest)


def _moment(times: Mapping[tuple[Kind, bytes], tuple[int, int]], sequence: int, model: str) -> Moment:
    """What those times come to for a call for `model`."""
    names = ((Kind.BEGIN, NOBODY), (Kind.ALL, NOBODY), (Kind.SHARED, NOBODY), (Kind.MODEL, name_of(model)))
    found = [times.get(name, (0, 0)) for name in names]
    return Moment(max(local for local, _ in found), max(shared for _, shared in found), sequence)
