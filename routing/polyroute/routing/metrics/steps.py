"""The counts of what nearly every call passes on its way: cache, permit, attempt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter

from polyroute.core import telemetry
from polyroute.routing.metrics.instruments import FastHistogram, counter, histogram
from polyroute.routing.metrics.later import Later, register
from polyroute.routing.metrics.series import Series

_Step: TypeAlias = tuple[Counter | FastHistogram, tuple[str, ...], float]


class Steps:
    """Instruments of the steps of calls, which are counted later, `later`."""

    def __init__(self, registry: CollectorRegistry, series: Series) -> None:
        self._series = series
        self._lookups = counter(telemetry.CACHE_LOOKUPS, None)
        self._stores = counter(telemetry.CACHE_STORES, None)
        self._attempts = counter(telemetry.ATTEMPTS, None)
        self._queue_wait = histogram(telemetry.QUEUE_WAIT, None)
        self.later: Later[_Step] = Later(self._count)
        register(registry, (self._attempts, self._queue_wait, self._lookups, self._stores), self.later)

    def cache_lookup(self, model: str, result: str) -> None:
        """See `Metrics.cache_lookup`."""
        self.later.add((self._lookups, (model, result), 1))

    def cache_store(self, model: str, result: str) -> None:
        """See `Metrics.cache_store`."""
        self.later.add((self._stores, (model, result), 1))

    def attempted(self, deployment: str, outcome: str) -> None:
        """See `Metrics.attempted`."""
        self.later.add((self._attempts, (deployment, outcome), 1))

    def queued(self, deployment: str, wait_s: float) -> None:
        """See `Metrics.queued`."""
        self.later.add((self._queue_wait, (deployment,), wait_s))

    def _count(self, steps: Sequence[_Step]) -> None:
        amounts: defaultdict[tuple[Counter | FastHistogram, tuple[str, ...]], list[float]] = defaultdict(list)
        for instrument, labels, amount in steps:
            amounts[instrument, labels].append(amount)
        for (instrument, labels), each in amounts.items():
            if isinstance(instrument, Counter):
                self._series.of(instrument, *labels).inc(sum(each))
            else:
                self._series.of(instrument, *labels).observe_all(each)
