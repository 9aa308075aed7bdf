"""What replicas say of themselves, and what they were asked: read at every scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from polyroute.core import telemetry
from polyroute.core.backend import AttemptCounts, ReplicaStatus
from polyroute.routing.metrics.instruments import counter_family, cumulative, gauge_family, histogram_family
from polyroute.routing.views import ModelView

_BREAKER_STATES = ("closed", "open", "half_open")


class Replicas(Collector):
    """Of the replicas that there are now; one that is gone leaves no series behind."""

    def __init__(self, models: Callable[[], Iterable[ModelView]]) -> None:
        self._models = models

    def describe(self) -> Iterable[MetricFamily]:
        return _Families().all

    def collect(self) -> Iterator[MetricFamily]:
        families = _Families()
        for model in self._models():
            for name, replica in by_name(model).items():
                families.add([model.id, name], replica)
        yield from families.all


def by_name(model: ModelView) -> dict[str, ReplicaStatus]:
    """A model's replicas. Where one of a name leaves while another has come, the one that has come counts."""
    return {replica.name: replica for replica in reversed(model.status.replicas)}


class _Families:
    def __init__(self) -> None:
        self.in_flight = gauge_family(telemetry.REPLICA_IN_FLIGHT)
        self.weight = gauge_family(telemetry.REPLICA_WEIGHT)
        self.breaker = gauge_family(telemetry.REPLICA_BREAKER)
        self.ejections = counter_family(telemetry.EJECTIONS)
        self.attempts = counter_family(telemetry.REPLICA_ATTEMPTS)
        self.first_token = histogram_family(telemetry.REPLICA_FIRST_TOKEN)
        self.seconds = counter_family(telemetry.REPLICA_SECONDS)

    @property
    def all(self) -> tuple[MetricFamily, ...]:
        return tuple(vars(self).values())

    def add(self, labels: list[str], replica: ReplicaStatus) -> None:
        self.in_flight.add_metric(labels, replica.in_flight)
        if replica.breaker:
            self.weight.add_metric(labels, replica.weight)
            self.ejections.add_metric(labels, replica.ejections)
            for state in _BREAKER_STATES:
                self.breaker.add_metric([*labels, state], float(replica.breaker == state))
        if replica.attempts is not None:
            self._add_attempts(labels, replica.attempts)

    def _add_attempts(self, labels: list[str], attempts: AttemptCounts) -> None:
        for outcome, count in {"ok": 0, **attempts.outcomes}.items():
            self.attempts.add_metric([*labels, outcome], count)
        buckets = cumulative(telemetry.REPLICA_FIRST_TOKEN.buckets, attempts.first_sizes)
        self.first_token.add_metric(labels, buckets, attempts.first_s)
        self.seconds.add_metric(labels, attempts.ended_s)
