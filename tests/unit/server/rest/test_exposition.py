"""The parts of `/metrics` are together what the client's encoder makes of it, in both formats."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import cast

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from polyroute.server.rest.exposition import Encode, parts

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(params=["", OPENMETRICS])
def encode(request: pytest.FixtureRequest) -> Encode:
    return choose_encoder(request.param)[0]


@pytest.fixture
def registry() -> CollectorRegistry:
    """Families of no samples, of few, and of thousands; help and labels that are hard to tell from the rest."""
    disable_created_metrics()  # type: ignore[no-untyped-call] - as `metrics_on` does
    made = CollectorRegistry()
    Counter("never", "Has no child.", ("model",), registry=made)
    Gauge("help", "# HELP help: a line\n# EOF\n", registry=made).set(1)
    Gauge("hash", "By label.", ("label",), registry=made).labels('# EOF\n"#').set(2)
    many = Histogram("many", "Seconds.", ("model",), registry=made)
    for i in range(400):
        many.labels(f"org/model-{i}").observe(i / 40, {"trace_id": f"{i:032x}"})
    for i in range(500):
        Counter(f"single_{i}", "One of many. " * 10, registry=made).inc(i)
    return made


def test_together_they_are_the_whole(registry: CollectorRegistry, encode: Encode) -> None:
    made = list(parts(registry, encode))
    assert len(made) > 2
    assert b"".join(made) == encode(registry)


def test_nothing_is_what_the_client_makes_of_nothing(encode: Encode) -> None:
    assert b"".join(parts(CollectorRegistry(), encode)) == encode(CollectorRegistry())


def test_garbage_is_collected_again_between_parts_and_after_a_failure(encode: Encode) -> None:
    class Broken:
        def collect(self) -> Iterator[None]:
            assert not gc.isenabled()
            raise RuntimeError("bug")
            yield

    registry = CollectorRegistry()
    registry.register(Broken())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="bug"):
        list(parts(registry, encode))
    assert gc.isenabled()


@pytest.mark.parametrize("collecting", [True, False])
def test_it_is_left_as_it_was(registry: CollectorRegistry, encode: Encode, collecting: bool) -> None:
    (gc.enable if collecting else gc.disable)()
    try:
        assert {gc.isenabled() for _ in parts(registry, encode)} == {collecting}
    finally:
        gc.enable()


def test_of_a_registry_that_is_restricted_only_that(registry: CollectorRegistry, encode: Encode) -> None:
    wanted = registry.restricted_registry(["many_count", "single_7_total"])
    text = b"".join(parts(cast("Collector", wanted), encode)).decode()
    samples = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    assert samples == {"many_count", "single_7_total"}
