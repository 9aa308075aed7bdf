"""What the tiers of the cache count, read at every scrape, so that a hit pays for no metric of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from polyroute.core import telemetry
from polyroute.routing.metrics.instruments import counter_family, gauge_family
from polyroute.routing.views import TierCounts


class Tiers(Collector):
    """Each tier's counts, and whether it is used."""

    def __init__(self, tiers: Callable[[], Iterable[TierCounts]]) -> None:
        self._tiers = tiers

    def describe(self) -> Iterable[MetricFamily]:
        counted = (telemetry.CACHE_TIER_LOOKUPS, telemetry.CACHE_TIER_STORES, telemetry.CACHE_TIER_FAILURES)
        return [*map(counter_family, counted), gauge_family(telemetry.CACHE_TIER_USED)]

    def collect(self) -> Iterator[MetricFamily]:
        lookups = counter_family(telemetry.CACHE_TIER_LOOKUPS)
        stores = counter_family(telemetry.CACHE_TIER_STORES)
        failures = counter_family(telemetry.CACHE_TIER_FAILURES)
        used = gauge_family(telemetry.CACHE_TIER_USED)
        for tier in self._tiers():
            lookups.add_metric([tier.name, "hit"], tier.hits)
            lookups.add_metric([tier.name, "miss"], tier.misses)
            stores.add_metric([tier.name], tier.stores)
            failures.add_metric([tier.name, "failed"], tier.errors)
            failures.add_metric([tier.name, "skipped"], tier.skipped)
            used.add_metric([tier.name, "read"], float(tier.read))
            used.add_metric([tier.name, "write"], float(tier.written))
        yield from (lookups, stores, failures, used)
