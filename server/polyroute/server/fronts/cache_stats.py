"""What the cache holds and how often it helped, of several processes as if they were one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.routing.views import CacheStats, ModelCacheStats, ModelTierStats, SemanticStats, TierStats

_OWN: Final = "each router process"
"""Where a tier is of which each process has its own."""


def merged_stats(home: CacheStats, fronts: Sequence[CacheStats]) -> CacheStats:
    """Counts are added up. What tiers in memory hold is, too; below them all processes see the same."""
    tiers = {tier.name: tier for tier in (fronts[0] if fronts else home).tiers}
    models = {model.model: model for model in home.models}
    for place, front in enumerate(fronts):
        for tier in front.tiers if place else ():
            tiers[tier.name] = _tier(tiers[tier.name], tier) if tier.name in tiers else tier
        for model in front.models:
            models[model.model] = _model(models[model.model], model) if model.model in models else model
    return CacheStats(tuple(tiers.values()), tuple(models.values()))


def _tier(one: TierStats, other: TierStats) -> TierStats:
    own = one.name == MemoryTier.name
    return replace(
        one,
        location=_OWN if own else one.location,
        entries=one.entries + other.entries if own else max(one.entries, other.entries),
        bytes=one.bytes + other.bytes if own else max(one.bytes, other.bytes),
        max_bytes=one.max_bytes + other.max_bytes if own else max(one.max_bytes, other.max_bytes),
        hits=one.hits + other.hits,
        misses=one.misses + other.misses,
        errors=one.errors + other.errors,
        trouble=one.trouble or other.trouble,
    )


def _model(one: ModelCacheStats, other: ModelCacheStats) -> ModelCacheStats:
    return ModelCacheStats(
        one.model,
        hits=one.hits + other.hits,
        misses=one.misses + other.misses,
        stores=one.stores + other.stores,
        saved_tokens=one.saved_tokens + other.saved_tokens,
        saved_s=one.saved_s + other.saved_s,
        coalesced=one.coalesced + other.coalesced,
        tiers=_model_tiers([*other.tiers, *one.tiers]),  # of the home, which is first, memory may have nothing
        semantic=_semantic(one.semantic, other.semantic),
    )


def _model_tiers(tiers: Iterable[ModelTierStats]) -> tuple[ModelTierStats, ...]:
    found: dict[str, ModelTierStats] = {}
    for tier in tiers:
        one = found.get(tier.name)
        own = tier.name == MemoryTier.name
        found[tier.name] = (
            tier
            if one is None
            else ModelTierStats(
                tier.name,
                one.entries + tier.entries if own else max(one.entries, tier.entries),
                one.bytes + tier.bytes if own else max(one.bytes, tier.bytes),
                one.hits + tier.hits,
            )
        )
    return tuple(found.values())


def _semantic(one: SemanticStats | None, other: SemanticStats | None) -> SemanticStats | None:
    if one is None or other is None:
        return one or other
    agreements = [(s.mean_agreement, s.compared) for s in (one, other) if s.mean_agreement is not None]
    compared = one.compared + other.compared
    return replace(
        one,
        entries=one.entries + other.entries,
        bytes=one.bytes + other.bytes,
        lookups=one.lookups + other.lookups,
        near=one.near + other.near,
        served=one.served + other.served,
        compared=compared,
        agreed=one.agreed + other.agreed,
        mean_agreement=sum(mean * count for mean, count in agreements) / compared if compared else None,
        skipped=one.skipped + other.skipped,
    )
