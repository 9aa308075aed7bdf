"""Whose the entries on disk are, as the store's tags tell: counted and removed by that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import diskcache

from polyroute.routing.cache.terms import Moment
from polyroute.routing.cache.tier import Held, Label

_BY_TAG: Final = "SELECT tag, COUNT(*), SUM(size + COALESCE(LENGTH(value), 0)), MAX(store_time) FROM Cache GROUP BY tag"


def tag_of(label: Label) -> str:
    """How the store tells whose an entry is."""
    return f"{label.moment.local:x} {label.model} {label.version}"


def held(cache: diskcache.Cache) -> Held:
    """What the store holds. `bytes` are those of the whole folder."""
    by_model: dict[str, tuple[int, int]] = {}
    entries = 0
    for tag, count, size, _ in cache._sql(_BY_TAG).fetchall():
        label = _label(tag)
        model = "" if label is None else label.model
        had = by_model.get(model, (0, 0))
        by_model[model] = (had[0] + int(count), had[1] + int(size))
        entries += int(count)
    return Held(entries, int(cache.volume()), by_model)


def reclaim(cache: diskcache.Cache, *, stale: Callable[[Label, float], bool]) -> int:
    """Removes the entries whose label is `stale`, and those without one; see `polyroute.routing.cache.tier.Tier`."""
    removed, now = 0, time.time()
    for tag, _, _, stored in cache._sql(_BY_TAG).fetchall():
        label = _label(tag)
        age_s = now - stored if isinstance(stored, int | float) else 0.0
        if label is None or stale(label, age_s):
            removed += int(cache.evict(tag))
    return removed + int(cache.expire())


def _label(tag: object) -> Label | None:
    """The label that `tag_of` wrote; None for any other."""
    parts = tag.split(" ", 2) if isinstance(tag, str) else []
    try:
        generation, model, version = parts
        return Label(model, version, Moment(int(generation, 16)))
    except ValueError:
        return None
