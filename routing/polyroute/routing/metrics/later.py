"""What is counted later: together with others like it, or before somebody reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from polyroute.routing.metrics.instruments import Instrument

MOST_WAITING: Final = 256
"""So many wait at most to be counted together; each costs the less the more do."""

_T = TypeVar("_T")


class Later(Generic[_T]):
    """What waits for `count_all`, which is given it in its order. From any thread."""

    def __init__(self, count_all: Callable[[Sequence[_T]], None]) -> None:
        self._count_all = count_all
        self._waiting: list[_T] = []
        self._counting = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: _T) -> None:
        """Has something counted."""
        self._waiting.append(item)
        if len(self._waiting) >= MOST_WAITING:
            self.count()

    def count(self) -> None:
        """Counts what waits; once it returns, nobody else is still about to."""
        with self.counted():
            pass

    @contextmanager
    def counted(self) -> Iterator[None]:
        """All is counted, and nobody counts meanwhile."""
        with self._counting:
            waiting = self._waiting[:]
            del self._waiting[: len(waiting)]  # another thread may have added to it
            if waiting:
                self._count_all(waiting)
            yield


def register(registry: CollectorRegistry, instruments: Iterable[Instrument], later: Later[_T]) -> None:
    """Puts instruments on a registry: before anybody reads one, what waits is counted."""
    for instrument in instruments:
        registry.register(_UpToDate(instrument, later.count))


class _UpToDate(Collector):
    """An instrument that is brought up to date, by `update`, before it is read."""

    def __init__(self, instrument: Instrument, update: Callable[[], None]) -> None:
        self._instrument = instrument
        self._update = update

    def describe(self) -> Iterable[Metric]:
        return self._instrument.describe()

    def collect(self) -> Iterable[Metric]:
        self._update()
        return self._instrument.collect()
