"""Each replica's attempts have series of their own, which end when it leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from polyroute.core.backend import AttemptCounts, BackendStatus, ModelState, ReplicaStatus
from polyroute.core.telemetry import REPLICA_FIRST_TOKEN
from polyroute.routing.metrics import Metrics
from polyroute.routing.views import ModelView
from tests.counts import total

SIZES = (3, 2, *(0 for _ in REPLICA_FIRST_TOKEN.buckets[1:]))
STATUS = ReplicaStatus(
    "http://one",
    ModelState.WARM,
    breaker="closed",
    attempts=AttemptCounts({"ok": 4, "PEER_FAILED": 2}, SIZES, first_s=0.5, ended_s=9.5),
)
OF = {"deployment": "m", "replica": "http://one"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def view(*replicas: ReplicaStatus) -> ModelView:
    return ModelView("m", "remote", BackendStatus(ModelState.WARM, replicas=replicas))


def test_attempts_by_outcome_and_their_times(registry: CollectorRegistry) -> None:
    Metrics(registry, ("m",)).watch(lambda: [view(STATUS)])
    value = registry.get_sample_value
    assert value("polyroute_replica_attempts_total", {**OF, "outcome": "ok"}) == 4
    assert value("polyroute_replica_attempts_total", {**OF, "outcome": "PEER_FAILED"}) == 2
    assert value("polyroute_replica_attempt_seconds_total", OF) == 9.5
    assert value("polyroute_replica_first_token_seconds_sum", OF) == 0.5
    assert value("polyroute_replica_first_token_seconds_count", OF) == 5
    first = str(REPLICA_FIRST_TOKEN.buckets[0])
    assert value("polyroute_replica_first_token_seconds_bucket", {**OF, "le": first}) == 3


def test_a_rate_sees_the_first_answer(registry: CollectorRegistry) -> None:
    fresh = replace(STATUS, attempts=AttemptCounts({}, tuple(0 for _ in SIZES), 0.0, 0.0))
    Metrics(registry, ("m",)).watch(lambda: [view(fresh)])
    assert registry.get_sample_value("polyroute_replica_attempts_total", {**OF, "outcome": "ok"}) == 0


def test_nothing_is_left_of_a_replica_that_is_gone(registry: CollectorRegistry) -> None:
    views = [view(STATUS)]
    Metrics(registry, ("m",)).watch(lambda: views)
    assert total(registry, "polyroute_replica_attempts_total", replica="http://one") == 6
    views[0] = view()
    assert not [
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.labels.get("replica") == "http://one"
    ]


def test_one_that_has_come_counts_and_not_the_one_of_its_name_that_leaves(registry: CollectorRegistry) -> None:
    leaving = replace(STATUS, state=ModelState.DRAINING, attempts=replace(STATUS.attempts, ended_s=99.0))  # type: ignore[type-var]
    Metrics(registry, ("m",)).watch(lambda: [view(STATUS, leaving)])
    assert registry.get_sample_value("polyroute_replica_attempt_seconds_total", OF) == 9.5
