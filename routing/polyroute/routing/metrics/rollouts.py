"""Where rollouts stand, as this router knows it: read at every scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from polyroute.core import telemetry
from polyroute.routing.metrics.instruments import counter_family, gauge_family
from polyroute.routing.views import RolloutStanding


class RolloutStates(Collector):
    """Of the rollouts of the configuration in force; one that is gone leaves no series behind."""

    def __init__(self, standings: Callable[[], Iterable[RolloutStanding]]) -> None:
        self._standings = standings

    def describe(self) -> Iterable[MetricFamily]:
        gauges = (telemetry.ROLLOUT_STATE, telemetry.ROLLOUT_WEIGHT)
        return [*map(gauge_family, gauges), counter_family(telemetry.ROLLOUT_MOVES)]

    def collect(self) -> Iterator[MetricFamily]:
        states, weights = gauge_family(telemetry.ROLLOUT_STATE), gauge_family(telemetry.ROLLOUT_WEIGHT)
        moves = counter_family(telemetry.ROLLOUT_MOVES)
        for rollout in self._standings():
            weights.add_metric([rollout.route], rollout.weight)
            for state, count in rollout.moves.items():
                states.add_metric([rollout.route, state], float(state == rollout.state))
                moves.add_metric([rollout.route, state], count)
        yield from (states, weights, moves)
