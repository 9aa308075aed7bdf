"""How routes divide their traffic now: read at every scrape, for rollouts and what is learnt move it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from polyroute.core import telemetry
from polyroute.routing.metrics.instruments import gauge_family
from polyroute.routing.plan import Rule


class Shares(Collector):
    """The share of each variant, by route."""

    def __init__(self, rules: Callable[[], Iterable[Rule]]) -> None:
        self._rules = rules

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [gauge_family(telemetry.VARIANT_SHARE)]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        (family,) = self.describe()
        for rule in self._rules():
            for variant in rule.variants:
                if variant.name:
                    family.add_metric([rule.id, variant.name], rule.share(variant))
        yield family
