"""Gauges of models, their permits and memory: read at every scrape, never counted."""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from polyroute.core import telemetry
from polyroute.core.backend import ModelState
from polyroute.routing.metrics.instruments import gauge_family
from polyroute.routing.views import MemoryView, ModelView


class States(Collector):
    """Gauges that are read, not counted."""

    def __init__(self, models: Callable[[], Iterable[ModelView]]) -> None:
        self._models = models

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [gauge_family(metric) for metric in _READ]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        permits, limits, queued, queue_limits, runs, states, replicas = self.describe()
        for model in self._models():
            permits.add_metric([model.id], model.in_flight)
            limits.add_metric([model.id], model.max_concurrency)
            queued.add_metric([model.id], model.queued)
            queue_limits.add_metric([model.id], model.max_queue)
            runs.add_metric([model.id], model.runs)
            for state in ModelState:
                if state is not ModelState.UNSPECIFIED:
                    states.add_metric([model.id, state.name.lower()], float(model.status.state is state))
            if model.type == "local":
                for state, count in Counted(replica.state for replica in model.status.replicas).items():
                    replicas.add_metric([model.id, state.name.lower()], count)
        yield from (permits, limits, queued, queue_limits, runs, states, replicas)


_READ = (
    telemetry.PERMITS,
    telemetry.PERMIT_LIMIT,
    telemetry.QUEUED,
    telemetry.QUEUE_LIMIT,
    telemetry.CACHE_RUNS,
    telemetry.MODEL_STATE,
    telemetry.REPLICAS,
)


class MemoryHeld(Collector):
    """The memory of local models, read as it is."""

    def __init__(self, memory: Callable[[], Iterable[MemoryView]]) -> None:
        self._memory = memory

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [gauge_family(metric) for metric in (telemetry.MEMORY_HELD, telemetry.MEMORY_BUDGET)]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        held, budget = self.describe()
        for view in self._memory():
            held.add_metric([view.device], view.held_bytes)
            if view.budget_bytes is not None:
                budget.add_metric([view.device], view.budget_bytes)
        yield from (held, budget)
