"""Two scrapes become what each model does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from polyroute.client.exposition import Samples
from polyroute.client.load import ModelLoad, loads, quantile
from polyroute.core.event import CacheResult, Route, Timing, Usage
from polyroute.routing.metrics import Metrics

INF = float("inf")


class Served:
    """What a server would answer, with one model of four permits."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, ("m",))
        for name, value in (("permits_limit", 4), ("permits_in_use", 2), ("queued", 1)):
            Gauge(f"polyroute_{name}", "", ("deployment",), registry=self.registry).labels("m").set(value)

    def call(self, cache: CacheResult, outcome: str = "ok", first_token_s: float = 0.03) -> None:
        self.metrics.call_begun()
        route = Route(requested="m", deployment="m", cache=cache)
        self.metrics.call_ended(route, outcome, Timing(first_token_s=first_token_s, total_s=1), Usage(3, 10))

    def scrape(self) -> Samples:
        return Samples(generate_latest(self.registry).decode())


def test_what_happened_between_two_scrapes() -> None:
    served = Served()
    served.call(CacheResult.MISS, first_token_s=9)
    before = served.scrape()
    for _ in range(5):
        served.call(CacheResult.MISS)
    for _ in range(3):
        served.call(CacheResult.HIT)
    served.call(CacheResult.UNSPECIFIED, "PEER_FAILED")
    served.call(CacheResult.MISS, "CANCELLED")
    (load,) = loads(before, served.scrape(), 2.0)
    assert (load.model, load.in_flight, load.permits, load.queued) == ("m", 2, 4, 1)
    assert (load.calls, load.hits, load.errors) == (5.0, 0.3, 0.1)
    assert load.tokens == (5 + 1 + 1) * 10 / 2  # a stored answer generates nothing
    assert load.first_token_p50_s == pytest.approx(0.03)
    assert load.first_token_p99_s == pytest.approx(0.0398)


def test_a_model_without_calls_has_no_times() -> None:
    scrape = Served().scrape()
    assert loads(scrape, scrape, 1) == [ModelLoad("m", 2, 4, 1, 0, 0, None, None, None, None)]


def test_a_server_that_began_anew_is_not_counted_backwards() -> None:
    old, new = Served(), Served()
    for _ in range(10):
        old.call(CacheResult.MISS)
    new.call(CacheResult.MISS)
    (load,) = loads(old.scrape(), new.scrape(), 1)
    assert (load.calls, load.tokens) == (1, 10)


def test_quantiles_are_those_of_promql() -> None:
    buckets = [(1.0, 0.0), (2.0, 10.0), (4.0, 20.0), (INF, 40.0)]
    assert quantile(0.125, buckets) == 1.5
    assert quantile(0.5, buckets) == 4.0
    assert quantile(0.9, buckets) == 4.0
    assert quantile(0.5, [(1.0, 4.0), (INF, 4.0)]) == 0.5
    assert quantile(0.5, []) is quantile(0.5, [(1.0, 0.0), (INF, 0.0)]) is None


@given(st.dictionaries(st.sampled_from("abc"), st.text(st.characters(exclude_categories=("Cs",))), max_size=3))
def test_labels_come_back_as_they_were(labels: dict[str, str]) -> None:
    registry = CollectorRegistry()
    Gauge("x", "", sorted(labels) or ("a",), registry=registry).labels(**(labels or {"a": ""})).set(2.5)
    assert Samples(generate_latest(registry).decode()).value("x", labels or {"a": ""}) == 2.5


@pytest.mark.parametrize("text", ["<html>", "x{a=1 2", "x{} two", "x"])
def test_what_is_no_metrics_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        Samples(f"ok 1\n{text}\n")
