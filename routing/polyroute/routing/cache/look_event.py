"""That the cache was asked, on the span of the call that asked it."""

from __future__ import annotations

from polyroute.core.attributes import CACHE, CACHE_TIER
from polyroute.core.trace import Span, Value

LOOKED = "cache"


def note_look(span: Span, result: str, tier: str = "") -> None:
    """Notes what came of it, now: `hit` and where it was, `miss`, `coalesced`, or `error` where a tier failed."""
    told: dict[str, Value] = {CACHE: result}
    if tier:
        told[CACHE_TIER] = tier
    span.event(LOOKED, told)
