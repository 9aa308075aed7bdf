"""What the cache shows of itself, as `polyroute.v1` messages."""

from __future__ import annotations

from typing import Final

from polyroute.routing.views import CacheStats, ModelCacheStats, SemanticStats, TierStats
from polyroute.server.wire.values import duration
from polyroute.v1 import admin_pb2 as pb

_MODES: Final = {
    "off": pb.SEMANTIC_MODE_OFF,
    "measure": pb.SEMANTIC_MODE_MEASURE,
    "serve": pb.SEMANTIC_MODE_SERVE,
}


def cache_stats_to_wire(stats: CacheStats) -> pb.GetCacheStatsResponse:
    """What the cache holds and how often it helped."""
    return pb.GetCacheStatsResponse(tiers=map(_tier, stats.tiers), models=map(_model, stats.models))


def _tier(tier: TierStats) -> pb.CacheTier:
    return pb.CacheTier(
        name=tier.name,
        entries=tier.entries,
        bytes=tier.bytes,
        max_bytes=tier.max_bytes,
        hits=tier.hits,
        misses=tier.misses,
        errors=tier.errors,
        location=tier.location,
        trouble=tier.trouble,
    )


def _model(model: ModelCacheStats) -> pb.CacheModelStats:
    return pb.CacheModelStats(
        model=model.model,
        hits=model.hits,
        misses=model.misses,
        stores=model.stores,
        saved_tokens=model.saved_tokens,
        saved_time=duration(model.saved_s),
        tiers=[
            pb.CacheModelTier(name=tier.name, entries=tier.entries, bytes=tier.bytes, hits=tier.hits)
            for tier in model.tiers
        ],
        coalesced=model.coalesced,
        semantic=None if model.semantic is None else _semantic(model.semantic),
    )


def _semantic(semantic: SemanticStats) -> pb.CacheSemanticStats:
    return pb.CacheSemanticStats(
        mode=_MODES[semantic.mode],
        threshold=semantic.threshold,
        entries=semantic.entries,
        bytes=semantic.bytes,
        lookups=semantic.lookups,
        near=semantic.near,
        served=semantic.served,
        compared=semantic.compared,
        agreed=semantic.agreed,
        mean_agreement=semantic.mean_agreement,
        skipped=semantic.skipped,
    )
