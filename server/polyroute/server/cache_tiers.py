"""The composition root of the cache: builds the tiers that answers are kept in."""

from __future__ import annotations

from typing import Final

from polyroute.core.config import Config
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.disk_tier import DiskTier
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.server.settings import Settings
from polyroute.server.wire.stored import AnswerCodec

DEFAULT_MEMORY_BYTES: Final = 64 * 1024 * 1024
"""Size of the tier in memory, where the file says none."""
DEFAULT_DISK_BYTES: Final = 1024 * 1024 * 1024
"""Size of the tier on disk, where neither the environment nor the file says one."""


def tiers_of(settings: Settings) -> Answers:
    """The tiers that a server has, nearest first."""
    memory = MemoryTier(_memory_bytes(settings.config))
    disk = GuardedTier(DiskTier(settings.cache_dir / "answers", _disk_bytes(settings, settings.config)))
    invalidations = Invalidations(settings.cache_dir / "answers.invalidations")
    if settings.redis_url is None:
        return Answers(memory, [disk], invalidations, AnswerCodec())
    return _shared(memory, disk, invalidations, settings.redis_url.get_secret_value())


def resize(answers: Answers, settings: Settings, config: Config) -> None:
    """Gives the tiers the sizes that a configuration says which has come into force."""
    answers.memory.resize(_memory_bytes(config))
    for tier in answers.below:
        if tier.name == DiskTier.name:
            tier.resize(_disk_bytes(settings, config))


def _memory_bytes(config: Config) -> int:
    return config.cache.size("memory") or DEFAULT_MEMORY_BYTES


def _disk_bytes(settings: Settings, config: Config) -> int:
    return settings.cache_bytes or config.cache.size("disk") or DEFAULT_DISK_BYTES


def _shared(memory: MemoryTier, disk: GuardedTier, invalidations: Invalidations, url: str) -> Answers:
    """The same with a Redis below. Only here is redis-py imported, which other installations need not have."""
    from polyroute.routing.cache.leases import Leases
    from polyroute.routing.cache.redis_client import connect, location_of
    from polyroute.routing.cache.redis_tier import RedisTier
    from polyroute.routing.cache.sharing import Sharing

    client = connect(url)
    redis = GuardedTier(RedisTier(client, location_of(url)))
    sharing = Sharing(client, invalidations)
    return Answers(memory, [disk, redis], invalidations, AnswerCodec(), sharing=sharing, leases=Leases(client))
