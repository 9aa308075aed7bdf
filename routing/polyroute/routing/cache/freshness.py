"""How good a stored answer still is: a pure decision by its age (RFC 9111, section 4.2, and RFC 5861)."""

from __future__ import annotations

from enum import Enum
from typing import Final

from polyroute.core.config import CacheConfig
from polyroute.core.event import CacheResult, Route


class Freshness(Enum):
    """What a stored answer may be used for."""

    FRESH = "fresh"
    """It may be given."""
    STALE = "stale"
    """It may be given, while it is renewed (`stale-while-revalidate`)."""
    SPARE = "spare"
    """It may be given where the model fails (`stale-if-error`)."""
    OUT = "out"
    """It may not be given."""


FRESH: Final = Freshness.FRESH
"""The same: most answers are, and to find the member of an enum takes as long as to call a function."""


def freshness(age_s: float, fresh_s: float | None, config: CacheConfig, max_age_s: float | None) -> Freshness:
    """How good an answer is at an age, in seconds.

    It is fresh for `fresh_s`, None being for ever. What the request accepts at most, `max_age_s`, bounds every use.
    """
    if max_age_s is not None and age_s > max_age_s:
        return Freshness.OUT
    if fresh_s is None or age_s <= fresh_s:
        return Freshness.FRESH
    if age_s <= fresh_s + (config.stale_while_revalidate or 0.0):
        return Freshness.STALE
    if age_s <= fresh_s + (config.stale_if_error or 0.0):
        return Freshness.SPARE
    return Freshness.OUT


def upstream_age_s(route: Route) -> float:
    """How old an answer is as it comes: where a Polyroute upstream had it stored, in seconds (RFC 9111, 4.2.3)."""
    upstream = route.upstream
    while upstream is not None:
        if upstream.cache is CacheResult.HIT:
            return max(0.0, upstream.cache_age_s or 0.0)
        upstream = upstream.upstream
    return 0.0
