"""What the cache shows of itself reaches the wire with every field, and the client reads every one."""

from __future__ import annotations

from polyroute.client import operations
from polyroute.client.enums import SemanticMode
from polyroute.client.wire import read
from polyroute.routing.views import CacheStats, ModelCacheStats, ModelTierStats, SemanticStats, TierStats
from polyroute.server.wire.cache import cache_stats_to_wire
from polyroute.v1 import admin_pb2 as pb

STATS = CacheStats(
    (TierStats("disk", "/x", 1, 2, 3, 4, 5, 6, "it is full"),),
    (
        ModelCacheStats(
            *("m", 1, 2, 3, 4, 0.5, 6),
            tiers=(ModelTierStats("disk", 7, 8, 9),),
            semantic=SemanticStats("measure", 0.95, 1, 2, 3, 4, 5, 6, 7, 0.5, 9),
        ),
        ModelCacheStats("n"),
    ),
)


def test_nothing_is_lost_on_the_way_to_the_client() -> None:
    found = read(operations.CacheStats, cache_stats_to_wire(STATS))
    assert found.tiers == (operations.CacheTier("disk", 1, 2, 3, 4, 5, 6, "/x", "it is full"),)
    assert found.models[0] == operations.CacheModelStats(
        *("m", 1, 2, 3, 4, 0.5),
        tiers=(operations.CacheModelTier("disk", 7, 8, 9),),
        coalesced=6,
        semantic=operations.CacheSemanticStats(SemanticMode.MEASURE, 0.95, 1, 2, 3, 4, 5, 6, 7, 0.5, 9),
    )


def test_a_tier_that_is_off_and_a_mean_of_nothing_are_absent() -> None:
    wire = cache_stats_to_wire(STATS)
    assert not wire.models[1].HasField("semantic")
    none = CacheStats((), (ModelCacheStats("m", semantic=SemanticStats("serve", 0.9)),))
    assert not cache_stats_to_wire(none).models[0].semantic.HasField("mean_agreement")
    assert {f"SEMANTIC_MODE_{mode.upper()}" for mode in SemanticMode} == set(pb.SemanticMode.keys())
