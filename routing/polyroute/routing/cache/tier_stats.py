"""What tiers hold and did, as the router shows it: a plain translation of their counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polyroute.routing.cache.guarded import Counts
from polyroute.routing.cache.tier import Held
from polyroute.routing.views import ModelTierStats, TierStats


@dataclass(frozen=True, slots=True)
class Reading:
    """One tier as it was read; see `TierStats`."""

    name: str
    location: str
    max_bytes: int
    counts: Counts
    held: Held
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class AnswersStats:
    """What the tiers hold and did, nearest first; and the same of each model that has anything in one."""

    tiers: tuple[TierStats, ...]
    models: Mapping[str, tuple[ModelTierStats, ...]]


def stats_of(readings: Sequence[Reading], hits: Mapping[tuple[str, str], int]) -> AnswersStats:
    """The tiers and models of `readings`; `hits` are by tier and model."""
    models: dict[str, list[ModelTierStats]] = {}
    for reading in readings:
        by_model = reading.held.by_model
        for model in sorted({*by_model, *(model for tier, model in hits if tier == reading.name)}):
            entries, size = by_model.get(model, (0, 0))
            found = hits.get((reading.name, model), 0)
            models.setdefault(model, []).append(ModelTierStats(reading.name, entries, size, found))
    return AnswersStats(tuple(map(_tier, readings)), {model: tuple(tiers) for model, tiers in models.items() if model})


def _tier(reading: Reading) -> TierStats:
    counts, held = reading.counts, reading.held
    return TierStats(
        name=reading.name,
        location=reading.location if held.complete else f"{reading.location} (counted in part)",
        entries=held.entries,
        bytes=held.bytes,
        max_bytes=reading.max_bytes,
        hits=counts.hits,
        misses=counts.misses,
        errors=counts.errors + counts.skipped,
        trouble=reading.trouble,
    )
