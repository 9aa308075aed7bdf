"""Prometheus instruments and families, made from the names in `core.telemetry`."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Counted
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from polyroute.core.telemetry import Metric


class FastHistogram(Histogram):
    """A histogram that looks its bucket up by halves: the library asks one after the other, several times a call."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        if exemplar:
            super().observe(amount, exemplar)
            return
        self._sum.inc(amount)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)

    def observe_all(self, amounts: Sequence[float], exemplar: dict[str, str] | None = None) -> None:
        """As `observe` of each."""
        if exemplar:
            for amount in amounts:
                self.observe(amount, exemplar)
            return
        self._sum.inc(sum(amounts))
        bounds = self._upper_bounds
        for bucket, count in Counted([bisect_left(bounds, amount) for amount in amounts]).items():
            self._buckets[bucket].inc(count)


Instrument: TypeAlias = Counter | Gauge | FastHistogram


def counter(metric: Metric, registry: CollectorRegistry | None) -> Counter:
    """Counts events as they happen. None: on no registry."""
    return Counter(_of_kind("counter", metric).name, metric.help, metric.labels, registry=registry)


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """Holds a value that is set."""
    return Gauge(_of_kind("gauge", metric).name, metric.help, metric.labels, registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry | None) -> FastHistogram:
    """Counts values by size. None: on no registry."""
    _of_kind("histogram", metric)
    return FastHistogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)


def counter_family(metric: Metric) -> CounterMetricFamily:
    """For counts that somebody else keeps, and that are read at every scrape."""
    return CounterMetricFamily(_of_kind("counter", metric).name, metric.help, labels=metric.labels)


def gauge_family(metric: Metric) -> GaugeMetricFamily:
    """For values that are read at every scrape."""
    return GaugeMetricFamily(_of_kind("gauge", metric).name, metric.help, labels=metric.labels)


def histogram_family(metric: Metric) -> HistogramMetricFamily:
    """For histograms that somebody else keeps, and that are read at every scrape."""
    return HistogramMetricFamily(_of_kind("histogram", metric).name, metric.help, labels=metric.labels)


def cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them: each bound as text, and how many were no larger."""
    return [
        ("+Inf" if bound == float("inf") else str(float(bound)), float(count))
        for bound, count in zip((*bounds, float("inf")), accumulate(counts), strict=True)
    ]


def _of_kind(kind: str, metric: Metric) -> Metric:
    if metric.kind != kind:
        raise ValueError(f"{metric.name} is a {metric.kind} in core.telemetry, not a {kind}")
    return metric
