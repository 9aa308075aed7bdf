"""Series are of known names alone, and end with them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from polyroute.core.event import CacheResult, Route, Timing, Usage
from polyroute.routing.metrics import Metrics
from polyroute.routing.metrics.later import MOST_WAITING
from tests.counts import total


def series(registry: CollectorRegistry, label: str) -> set[str]:
    """The values of that label in whatever is counted."""
    return {s.labels[label] for family in registry.collect() for s in family.samples if label in s.labels}


NAMES = ("model", "deployment", "route", "gen_ai_request_model", "gen_ai_response_model")
"""Labels whose values are names of models or routes."""


def names(registry: CollectorRegistry) -> set[str]:
    """The models and routes in whatever is counted."""
    return set().union(*(series(registry, label) for label in NAMES))


def count(metrics: Metrics, name: str) -> None:
    metrics.call_begun()
    route = Route(requested=name, deployment=name, cache=CacheResult.MISS)
    metrics.call_ended(route, "ok", Timing(total_s=1), Usage(2, 3))
    metrics.attempted(name, "INTERNAL")
    metrics.fell_back(name, "INTERNAL")
    metrics.queued(name, 0)
    metrics.cache_lookup(name, "hit")
    metrics.model_loaded(name, "ok", 1)


def test_names_that_are_not_known_are_counted_together(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, {"a"})
    for name in ("a", "x", "y"):
        count(metrics, name)
    assert names(registry) == {"a", "_other"}
    assert total(registry, "polyroute_requests_total", model="_other", outcome="ok") == 2


def test_series_end_with_the_names_and_others_go_on(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, ("a", "b", "c"))
    for name in ("a", "b", "c", "x"):
        count(metrics, name)
    metrics.know(["a", "b", "d"])
    assert names(registry) == {"a", "b", "_other"}
    metrics.forget("a")
    metrics.forget("a")
    assert names(registry) == {"b", "_other"}
    for name in ("a", "b", "d"):
        count(metrics, name)
    assert names(registry) == {"b", "d", "_other"}
    assert total(registry, "polyroute_requests_total", model="b") == 2
    metrics.know(["a"])
    count(metrics, "a")
    assert total(registry, "polyroute_requests_total", model="a") == 1  # begun anew


def test_a_series_of_two_names_ends_with_either(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, ("route", "a", "b"))
    for model in ("a", "b"):
        metrics.call_begun()
        metrics.call_ended(Route(requested="route", deployment=model, variant=model), "ok", Timing(), Usage())
    metrics.know(("route", "b"))
    assert total(registry, "polyroute_requests_total", model="a") is None
    assert total(registry, "polyroute_requests_total", route="route", model="b", variant="b") == 1
    metrics.know(("b",))
    assert total(registry, "polyroute_requests_total") is None
    metrics.call_begun()
    metrics.call_ended(Route(requested="route", deployment="b"), "ok", Timing(), Usage())
    assert total(registry, "polyroute_requests_total", route="_other", model="b") == 1


def test_junk_makes_no_series(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, ("a",))
    count(metrics, "junk")
    count(metrics, "a")

    def number() -> int:
        return sum(len(family.samples) for family in registry.collect())

    before = number()
    for i in range(10_000):
        count(metrics, f"junk-{i}")
    assert number() == before
    assert len(metrics._calls._endings) == 2
    assert total(registry, "polyroute_requests_total", model="_other") == 10_001


def test_times_of_a_model_are_those_of_its_own_whole_answers(registry: CollectorRegistry) -> None:
    """A stored answer and a failure have a duration; neither says how fast the model is."""
    metrics = Metrics(registry, ("a",))
    timing, usage = Timing(first_token_s=0.5, total_s=2.5), Usage(10, 5, 4)
    for cache, outcome in ((CacheResult.MISS, "ok"), (CacheResult.HIT, "ok"), (CacheResult.BYPASS, "CANCELLED")):
        metrics.call_begun()
        metrics.call_ended(Route(requested="a", deployment="a", cache=cache), outcome, timing, usage)
    assert total(registry, "gen_ai_server_request_duration_seconds_sum") == 7.5
    assert total(registry, "gen_ai_server_request_duration_seconds_sum", cache="hit", error_type="") == 2.5
    assert total(registry, "gen_ai_server_request_duration_seconds_count", error_type="CANCELLED") == 1
    assert total(registry, "gen_ai_server_time_to_first_token_seconds_sum") == 0.5
    assert total(registry, "gen_ai_server_time_per_output_token_seconds_sum") == 0.5
    assert total(registry, "gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 30
    assert total(registry, "polyroute_prompt_tokens_reused_total") == 4
    assert total(registry, "polyroute_requests_in_flight") == 0


def test_exemplars_lead_to_recorded_traces(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, ("a",))
    for trace_id in ("", "0af7651916cd43dd8448eb211c80319c"):
        metrics.call_begun()
        metrics.call_ended(Route(requested="a", deployment="a"), "ok", Timing(), Usage(), trace_id=trace_id)
    found = {
        sample.name: sample.exemplar.labels
        for family in registry.collect()
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert found == {
        "gen_ai_server_request_duration_seconds_bucket": {"trace_id": "0af7651916cd43dd8448eb211c80319c"},
        "gen_ai_server_time_to_first_token_seconds_bucket": {"trace_id": "0af7651916cd43dd8448eb211c80319c"},
    }


seconds = st.floats(0, 1000, allow_nan=False).map(lambda value: round(value * 64) / 64)  # sums of these are exact
endings = st.tuples(
    st.builds(
        Route,
        requested=st.sampled_from(("a", "b", "x")),
        deployment=st.sampled_from(("", "a", "b")),
        cache=st.sampled_from(CacheResult),
    ),
    st.sampled_from(("ok", "CANCELLED")),
    st.builds(Timing, first_token_s=seconds, total_s=seconds, router_overhead_s=seconds),
    st.builds(Usage, st.integers(0, 5), st.integers(0, 3), st.integers(0, 2)),
)


def counts(registry: CollectorRegistry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The value of each series, but when it was made."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(endings, max_size=20))
def test_calls_that_are_counted_together_count_as_one_by_one(ended: list[tuple[Route, str, Timing, Usage]]) -> None:
    together, single = CollectorRegistry(), CollectorRegistry()
    at_once, one_by_one = Metrics(together, ("a", "b")), Metrics(single, ("a", "b"))
    for route, outcome, timing, usage in ended:
        at_once.call_ended(route, outcome, timing, usage)
        one_by_one.call_ended(route, outcome, timing, usage)
        one_by_one._calls.later.count()
    assert counts(together) == counts(single)


def test_as_many_wait_to_be_counted_as_is_said(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, ("a",))
    for _ in range(MOST_WAITING * 2 + 1):
        metrics.call_ended(Route(requested="a"), "ok", Timing(), Usage())
    assert len(metrics._calls.later) == 1
    assert total(registry, "polyroute_requests_total") == MOST_WAITING * 2 + 1
    assert not metrics._calls.later


def test_a_scrape_of_one_name_has_the_calls_that_wait(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, ("a",))
    for name in ("polyroute_requests_total", "gen_ai_server_request_duration_seconds_count"):
        metrics.call_ended(Route(requested="a"), "ok", Timing(), Usage())
        (family,) = registry.restricted_registry([name]).collect()
        assert [sample.name for sample in family.samples] == [name]
        assert family.samples[0].value >= 1
        assert not metrics._calls.later


def test_calls_that_wait_when_a_name_ends_are_counted_by_what_stays(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, ("route", "a"))
    metrics.call_ended(Route(requested="route", deployment="a"), "ok", Timing(router_overhead_s=1), Usage())
    metrics.attempted("route", "ok")
    metrics.attempted("a", "ok")
    metrics.know(("a",))
    assert total(registry, "polyroute_router_overhead_seconds_count", model="a") == 1
    assert total(registry, "polyroute_attempts_total") == 1
    assert names(registry) == {"a"}


def test_calls_that_wait_when_a_model_leaves_end_with_it(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, ("a",))
    metrics.call_ended(Route(requested="a"), "ok", Timing(), Usage())
    metrics.attempted("a", "ok")
    metrics.forget("a")
    assert not names(registry), "nor are they those of another name"


@pytest.fixture
def threads_in_turns() -> Iterator[None]:
    """Threads take turns at every chance."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("threads_in_turns")
def test_no_call_is_lost_or_counted_twice_while_others_read(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, ("a", "b"))
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            generate_latest(registry)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(5_000):
        name = "ab"[number % 2]
        metrics.queued(name, 1)
        metrics.cache_lookup(name, "miss")
        metrics.cache_store(name, "stored")
        metrics.call_ended(Route(requested=name), "ok", Timing(), Usage(1, 1))
        if number % 1000 == 0:
            metrics.know(("a", "b"))
    done.set()
    for reader in readers:
        reader.join()
    assert total(registry, "polyroute_requests_total") == 5_000
    assert total(registry, "gen_ai_client_token_usage_count") == 10_000
    assert total(registry, "polyroute_queue_seconds_sum") == total(registry, "polyroute_queue_seconds_count") == 5_000
    for name in ("lookups", "stores"):
        assert total(registry, f"polyroute_cache_{name}_total") == 5_000
