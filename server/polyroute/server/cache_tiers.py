"""The composition root of the cache: builds the tiers that answers are kept in."""

from __future__ import annotations

from typing import Final

from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.disk_tier import DiskTier
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.server.settings import Settings
from polyroute.server.wire.stored import AnswerCodec

DEFAULT_MEMORY_BYTES: Final = 64 * 1024 * 1024
"""Size of the tier in memory, where the file says none."""


def tiers_of(settings: Settings) -> Answers:
    """The tiers that a server has, nearest first: what the environment says of them wins over the file."""
    memory = MemoryTier(settings.config.cache.size("memory") or DEFAULT_MEMORY_BYTES)
    disk = DiskTier(settings.cache_dir / "answers", settings.cache_bytes)
    invalidations = Invalidations(settings.cache_dir / "answers.invalidations")
    return Answers(memory, [GuardedTier(disk)], invalidations, AnswerCodec())
