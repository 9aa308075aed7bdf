"""The tiers of the cache are read at every scrape: what they did, and which of them are left out."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from polyroute.routing.metrics import Metrics
from polyroute.routing.views import TierCounts


def test_each_tier_tells_what_it_did_and_whether_it_is_used() -> None:
    registry = CollectorRegistry()
    memory = TierCounts("memory", 5, 4, 3, 0, 0, bytes=600, max_bytes=1000)
    tiers = [memory, TierCounts("redis", 1, 3, 2, 7, 8, read=True, written=False)]
    Metrics(registry).watch_tiers(lambda: tiers)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"polyroute_cache_tier_{name}", labels)

    assert value("lookups_total", tier="memory", result="hit") == 5
    assert value("lookups_total", tier="redis", result="miss") == 3
    assert value("stores_total", tier="redis") == 2
    assert value("failures_total", tier="redis", kind="failed") == 7
    assert value("failures_total", tier="redis", kind="skipped") == 8
    assert value("used", tier="redis", operation="read") == 1
    assert value("used", tier="redis", operation="write") == 0
    assert (value("bytes", tier="memory"), value("limit_bytes", tier="memory")) == (600, 1000)
    assert value("bytes", tier="redis") is None
    tiers.pop()
    assert value("stores_total", tier="redis") is None
