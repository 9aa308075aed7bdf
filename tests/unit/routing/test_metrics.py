"""Series are of known names alone, and end with them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from polyroute.core.event import Timing, Usage
from polyroute.routing.metrics import Metrics


def series(registry: CollectorRegistry, label: str) -> set[str]:
    """The values of that label in whatever is counted."""
    return {s.labels[label] for family in registry.collect() for s in family.samples if label in s.labels}


def count(metrics: Metrics, name: str) -> None:
    metrics.call_begun()
    metrics.call_ended(name, "miss", "ok", Timing(total_s=1), Usage())
    metrics.attempt_failed(name, "INTERNAL")
    metrics.queued(name, 0)
    metrics.cache_lookup(name, "hit")
    metrics.model_loaded(name, "ok", 1)


def test_names_that_are_not_known_are_counted_together(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, {"a"})
    for name in ("a", "x", "y"):
        count(metrics, name)
    assert series(registry, "model") == series(registry, "deployment") == {"a", "_other"}
    assert registry.get_sample_value("polyroute_requests_total", _ok("_other")) == 2


def test_series_end_with_the_names_and_others_go_on(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, ("a", "b", "c"))
    for name in ("a", "b", "c", "x"):
        count(metrics, name)
    metrics.know(["a", "b", "d"])
    assert series(registry, "model") == series(registry, "deployment") == {"a", "b", "_other"}
    metrics.forget("a")
    metrics.forget("a")
    assert series(registry, "model") == series(registry, "deployment") == {"b", "_other"}
    for name in ("a", "b", "d"):
        count(metrics, name)
    assert series(registry, "model") == series(registry, "deployment") == {"b", "d", "_other"}
    assert registry.get_sample_value("polyroute_requests_total", _ok("b")) == 2
    metrics.know(["a"])
    count(metrics, "a")
    assert registry.get_sample_value("polyroute_requests_total", _ok("a")) == 1  # begun anew


def _ok(model: str) -> dict[str, str]:
    return {"model": model, "cache": "miss", "outcome": "ok"}
