"""What the cache did, of several processes as if they were one."""

from __future__ import annotations

from polyroute.routing.views import CacheStats, ModelCacheStats, ModelTierStats, TierStats
from polyroute.server.fronts.cache_stats import merged_stats

MIB = 2**20


def front(memory: int, disk: int, hits: int) -> CacheStats:
    """One with so many answers in its memory, and so many hits there."""
    tiers = (
        TierStats("memory", "this process", memory, memory * 100, 64 * MIB, hits, 1, 0),
        TierStats("disk", "/var/cache/answers", disk, disk * 50, 1024 * MIB, 0, 1, 0),
    )
    of_model = (ModelTierStats("memory", memory, memory * 100, hits), ModelTierStats("disk", disk, disk * 50, 0))
    return CacheStats(tiers, (ModelCacheStats("m", hits=hits, misses=1, stores=memory, tiers=of_model),))


def home() -> CacheStats:
    """The home looks at the same disk, and keeps nothing in memory."""
    disk = TierStats("disk", "/var/cache/answers", 5, 250, 1024 * MIB, 0, 0, 0)
    return CacheStats((disk,), (ModelCacheStats("m", tiers=(ModelTierStats("disk", 5, 250, 0),)),))


def test_memory_is_added_up_and_said_to_be_of_each_process() -> None:
    memory, disk = merged_stats(home(), [front(3, 5, 7), front(4, 5, 1)]).tiers
    assert (memory.entries, memory.bytes, memory.max_bytes, memory.hits) == (7, 700, 128 * MIB, 8)
    assert memory.location == "each router process"
    assert (disk.entries, disk.bytes, disk.max_bytes, disk.misses) == (5, 250, 1024 * MIB, 2)
    assert disk.location == "/var/cache/answers"


def test_tiers_of_a_model_stand_from_the_nearest_to_the_farthest() -> None:
    (model,) = merged_stats(home(), [front(3, 5, 7), front(4, 5, 1)]).models
    assert (model.hits, model.misses, model.stores) == (8, 2, 7)
    assert [(tier.name, tier.entries, tier.hits) for tier in model.tiers] == [("memory", 7, 8), ("disk", 5, 0)]
