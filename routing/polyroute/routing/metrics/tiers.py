"""What the tiers of the cache count, read at every scrape, so that a hit pays for no metric of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from polyroute.core import telemetry
from polyroute.routing.metrics.instruments import counter_family, gauge_family
from polyroute.routing.views import TierCounts


class Tiers(Collector):
    """Each tier's counts, whether it is used and, where that is at hand, how full it is."""

    def __init__(self, tiers: Callable[[], Iterable[TierCounts]]) -> None:
        self._tiers = tiers

    def describe(self) -> Iterable[MetricFamily]:
        counted = (telemetry.CACHE_TIER_LOOKUPS, telemetry.CACHE_TIER_STORES, telemetry.CACHE_TIER_FAILURES)
        gauges = (telemetry.CACHE_TIER_USED, telemetry.CACHE_TIER_BYTES, telemetry.CACHE_TIER_LIMIT)
        return [*map(counter_family, counted), *map(gauge_family, gauges)]

    def collect(self) -> Iterator[MetricFamily]:
        lookups = counter_family(telemetry.CACHE_TIER_LOOKUPS)
        stores = counter_family(telemetry.CACHE_TIER_STORES)
        failures = counter_family(telemetry.CACHE_TIER_FAILURES)
        used = gauge_family(telemetry.CACHE_TIER_USED)
        held, limit = gauge_family(telemetry.CACHE_TIER_BYTES), gauge_family(telemetry.CACHE_TIER_LIMIT)
        for tier in self._tiers():
            lookups.add_metric([tier.name, "hit"], tier.hits)
            lookups.add_metric([tier.name, "miss"], tier.misses)
            stores.add_metric([tier.name], tier.stores)
            failures.add_metric([tier.name, "failed"], tier.errors)
            failures.add_metric([tier.name, "skipped"], tier.skipped)
            used.add_metric([tier.name, "read"], float(tier.read))
            used.add_metric([tier.name, "write"], float(tier.written))
            if tier.bytes is not None:
                held.add_metric([tier.name], tier.bytes)
            if tier.max_bytes is not None:
                limit.add_metric([tier.name], tier.max_bytes)
        yield from (lookups, stores, failures, used, held, limit)
