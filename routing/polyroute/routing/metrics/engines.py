"""What the engines of local models say of themselves, read at every scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from polyroute.core import telemetry
from polyroute.core.backend import EngineStatus
from polyroute.routing.metrics.instruments import counter_family, cumulative, gauge_family, histogram_family
from polyroute.routing.metrics.replicas import by_name
from polyroute.routing.views import ModelView


class Engines(Collector):
    """A replica that is gone leaves no series behind; one whose worker was replaced counts anew."""

    def __init__(self, models: Callable[[], Iterable[ModelView]]) -> None:
        self._models = models

    def describe(self) -> Iterable[MetricFamily]:
        return _Families().all

    def collect(self) -> Iterator[MetricFamily]:
        families = _Families()
        for model in self._models():
            for name, replica in by_name(model).items():
                if replica.engine is not None:
                    families.add([model.id, name], replica.engine)
        yield from families.all


class _Families:
    def __init__(self) -> None:
        self.sequences = gauge_family(telemetry.ENGINE_SEQUENCES)
        self.kv_used = gauge_family(telemetry.ENGINE_KV_USED)
        self.kv_limit = gauge_family(telemetry.ENGINE_KV_LIMIT)
        self.step = histogram_family(telemetry.ENGINE_STEP)
        self.batch = histogram_family(telemetry.ENGINE_BATCH)
        self.prompt_tokens = counter_family(telemetry.ENGINE_PROMPT_TOKENS)
        self.output_tokens = counter_family(telemetry.ENGINE_OUTPUT_TOKENS)
        self.preemptions = counter_family(telemetry.ENGINE_PREEMPTIONS)

    @property
    def all(self) -> tuple[MetricFamily, ...]:
        return tuple(vars(self).values())

    def add(self, labels: list[str], engine: EngineStatus) -> None:
        for state in ("running", "waiting", "paused"):
            self.sequences.add_metric([*labels, state], getattr(engine, state))
        self.kv_used.add_metric(labels, engine.kv_used_bytes)
        self.kv_limit.add_metric(labels, engine.kv_limit_bytes)
        self.step.add_metric(labels, cumulative(telemetry.ENGINE_STEP.buckets, engine.step_sizes), engine.steps_s)
        self.batch.add_metric(labels, cumulative(telemetry.ENGINE_BATCH.buckets, engine.batch_sizes), engine.batched)
        self.prompt_tokens.add_metric([*labels, "computed"], engine.computed_tokens)
        self.prompt_tokens.add_metric([*labels, "prefix"], engine.reused_tokens)
        self.output_tokens.add_metric(labels, engine.output_tokens)
        self.preemptions.add_metric(labels, engine.preemptions)
