"""How good a stored answer still is, by its age."""

from __future__ import annotations

import pytest

from polyroute.core.config import CacheConfig
from polyroute.routing.cache.freshness import Freshness, freshness

NEITHER = CacheConfig()
BOTH = CacheConfig(stale_while_revalidate=10, stale_if_error=30)


@pytest.mark.parametrize(
    ("age_s", "fresh_s", "config", "max_age_s", "expected"),
    [
        (1e9, None, NEITHER, None, Freshness.FRESH),
        (1e9, None, BOTH, None, Freshness.FRESH),
        (60, 60, NEITHER, None, Freshness.FRESH),
        (61, 60, NEITHER, None, Freshness.OUT),
        (61, 60, BOTH, None, Freshness.STALE),
        (70, 60, BOTH, None, Freshness.STALE),
        (71, 60, BOTH, None, Freshness.SPARE),
        (90, 60, BOTH, None, Freshness.SPARE),
        (91, 60, BOTH, None, Freshness.OUT),
        (61, 60, CacheConfig(stale_if_error=30), None, Freshness.SPARE),
        (91, 60, CacheConfig(stale_while_revalidate=40, stale_if_error=30), None, Freshness.STALE),
        (5, None, NEITHER, 5, Freshness.FRESH),
        (5, None, NEITHER, 4, Freshness.OUT),
        (61, 60, BOTH, 60, Freshness.OUT),
        (61, 60, BOTH, 61, Freshness.STALE),
        (0, None, NEITHER, 0, Freshness.FRESH),
    ],
)
def test_by_age(
    age_s: float, fresh_s: float | None, config: CacheConfig, max_age_s: float | None, expected: Freshness
) -> None:
    assert freshness(age_s, fresh_s, config, max_age_s) is expected
