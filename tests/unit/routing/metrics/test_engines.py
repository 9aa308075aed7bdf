"""What workers report is shown as it is, under their replicas, and leaves with them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from polyroute.core import telemetry
from polyroute.core.backend import BackendStatus, EngineStatus, ModelState, ReplicaStatus
from polyroute.routing.metrics import Metrics
from polyroute.routing.views import ModelView

STEPS = tuple(range(len(telemetry.ENGINE_STEP.buckets) + 1))
BATCHES = (5, *(0 for _ in telemetry.ENGINE_BATCH.buckets))
ENGINE = EngineStatus(1, 2, 3, 400, 500, STEPS, 6.5, BATCHES, 5, 70, 80, 90, 10)
OF = {"model": "m", "replica": "m#0"}


def view(engine: EngineStatus | None) -> ModelView:
    replica = ReplicaStatus("m#0", ModelState.WARM, engine=engine)
    return ModelView("m", "local", BackendStatus(ModelState.WARM, replicas=(replica,)))


def test_each_number_has_its_series() -> None:
    registry = CollectorRegistry()
    Metrics(registry, ("m",)).watch(lambda: [view(ENGINE)])
    value = registry.get_sample_value
    assert [value("polyroute_engine_sequences", {**OF, "state": s}) for s in ("running", "waiting", "paused")] == [
        *(1, 2, 3)
    ]
    assert (value("polyroute_engine_kv_used_bytes", OF), value("polyroute_engine_kv_limit_bytes", OF)) == (400, 500)
    assert value("polyroute_engine_prompt_tokens_total", {**OF, "source": "computed"}) == 70
    assert value("polyroute_engine_prompt_tokens_total", {**OF, "source": "prefix"}) == 80
    assert value("polyroute_engine_output_tokens_total", OF) == 90
    assert value("polyroute_engine_preemptions_total", OF) == 10
    assert value("polyroute_engine_step_seconds_sum", OF) == 6.5
    assert value("polyroute_engine_step_seconds_count", OF) == sum(STEPS)
    assert value("polyroute_engine_step_seconds_bucket", {**OF, "le": "0.005"}) == 0 + 1 + 2
    assert value("polyroute_engine_batch_sequences_bucket", {**OF, "le": "1.0"}) == 5


def test_prometheus_reads_the_histograms_as_such() -> None:
    registry = CollectorRegistry()
    Metrics(registry, ("m",)).watch(lambda: [view(ENGINE)])
    kinds = {f.name: f.type for f in text_string_to_metric_families(generate_latest(registry).decode())}
    assert kinds["polyroute_engine_step_seconds"] == kinds["polyroute_engine_batch_sequences"] == "histogram"


def test_nothing_is_left_of_a_worker_that_is_gone() -> None:
    registry = CollectorRegistry()
    views = [view(ENGINE)]
    Metrics(registry, ("m",)).watch(lambda: views)
    assert registry.get_sample_value("polyroute_engine_output_tokens_total", OF) == 90
    views[0] = view(None)
    assert registry.get_sample_value("polyroute_engine_output_tokens_total", OF) is None


def test_a_name_that_two_have_for_a_moment_has_each_series_once() -> None:
    registry = CollectorRegistry()
    both = (ReplicaStatus("m#0", ModelState.WARM, engine=ENGINE),) * 2
    Metrics(registry, ("m",)).watch(lambda: [ModelView("m", "local", BackendStatus(ModelState.WARM, replicas=both))])
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    assert any(line.startswith("polyroute_engine_output_tokens_total") for line in lines)
    assert len({line.rsplit(" ", 1)[0] for line in lines}) == len(lines)
