"""Metrics of several processes as if they were one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from polyroute.core import telemetry
from polyroute.server.fronts.merging import Exposition, counted, merged, told
from polyroute.server.fronts.messages.exposing import Collected, Family
from polyroute.server.fronts.messages.frames import encode_frame, to_home_decoder
from polyroute.server.rest.exposition import parts


def process(calls: int, late: tuple[float, ...] = (), **gauges: float) -> list[Family]:
    registry = CollectorRegistry()
    counter = Counter("calls", "Calls.", ["model"], registry=registry)
    counter.labels("m").inc(calls)
    histogram = Histogram("late", "How late.", ["face"], registry=registry, buckets=(1.0, 2.0))
    for place, value in enumerate(late):
        histogram.labels("grpc").observe(value, {"trace_id": f"{place}"})
    for name, gauge_value in gauges.items():
        Gauge(name, "A gauge.", ["tier"], registry=registry).labels("memory").set(gauge_value)
    return sent(told(registry))


def sent(families: list[Family]) -> list[Family]:
    """As they come out of a socket."""
    message = to_home_decoder.decode(encode_frame(Collected(1, families))[4:])
    assert isinstance(message, Collected)
    return message.families


def shown(families: list[Family]) -> tuple[dict[str, float], str]:
    """The samples of the text, as OpenMetrics has it; and the text."""
    text = b"".join(parts(Exposition(families), exposition.generate_latest)).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {f"{sample.name} {' '.join(sample.labels.values())}".strip(): sample.value for sample in samples}, text


def test_counts_are_added_up() -> None:
    samples, text = shown(merged(process(1), [process(2, (0.5, 5.0)), process(4, (1.5,))]))
    assert samples["calls_total m"] == 7
    assert (samples["late_bucket grpc 1.0"], samples["late_bucket grpc +Inf"]) == (1, 3)
    assert (samples["late_count grpc"], samples["late_sum grpc"]) == (3, 7.0)
    assert text.count("# HELP calls ") == 1


def test_exemplars_stay() -> None:
    _, text = shown(merged(process(0), [process(0, (0.5,)), process(0, (1.5,))]))
    assert 'late_bucket{face="grpc",le="1.0"} 1.0 # {trace_id="0"} 0.5' in text
    assert 'late_bucket{face="grpc",le="2.0"} 2.0 # {trace_id="0"} 1.5' in text


def test_gauges_are_as_each_means_it() -> None:
    home = telemetry.PERMITS.name, telemetry.CACHE_TIER_LIMIT.name, telemetry.CACHE_TIER_USED.name
    values = [dict(zip(home, values, strict=True)) for values in ((3.0, 100.0, 1.0), (1.0, 5.0, 0.0), (1.0, 6.0, 1.0))]
    samples, _ = shown(merged(process(0, **values[0]), [process(0, **values[1]), process(0, **values[2])]))
    assert [samples[f"{name} memory"] for name in home] == [3, 11, 0]
    assert shown(merged(process(0, open=1.0), [process(0, open=2.0)]))[0]["open memory"] == 3


def test_what_only_a_front_has_is_told_too() -> None:
    assert shown(merged(process(0), [process(0, of_a_front=2.0)]))[0]["of_a_front memory"] == 2


def test_counts_outlive_their_process() -> None:
    past = counted(process(5, (0.5,), open=1.0))
    assert {family.kind for family in past} == {"counter", "histogram"}
    assert shown(merged(process(0), [past, process(1)]))[0]["calls_total m"] == 6


def test_every_rule_is_of_a_metric_that_there_is() -> None:
    from polyroute.server.fronts.merging import _RULES

    ours = {metric.name for metric in telemetry.metrics()}
    theirs = {"process_start_time_seconds", "process_max_fds", "python_info"}
    assert set(_RULES) <= ours | theirs
