"""What the tests of the cache's layer share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from polyroute.backends.echo import EchoBackend
from polyroute.core.config import CacheConfig
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.routing.cache.shelf import Shelf
from polyroute.routing.layers.cached import Cached
from polyroute.routing.metrics import Metrics
from tests.clock import Clock


@pytest.fixture
def backend() -> EchoBackend:
    return EchoBackend("m")


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000.0)


@pytest.fixture
async def in_memory(codec: Any, clock: Clock) -> AsyncIterator[Answers]:
    """A cache that is in memory alone, by a clock that stands still."""
    answers = Answers(MemoryTier(2**24, clock=clock), [], Invalidations(), codec, wall=clock)
    yield answers
    await answers.close()


@pytest.fixture
async def layer(in_memory: Answers, metrics: Metrics, clock: Clock) -> AsyncIterator[Callable[..., Cached]]:
    """Makes a cache around a backend, or around another service; its runs are ended with the test."""
    made: list[Cached] = []

    def _layer(backend: EchoBackend, inner: Any = None, *, local: bool = True, **config: Any) -> Cached:
        shelf = Shelf("m", local, "f", CacheConfig(**config), backend.facts)
        made.append(Cached(inner or backend.stream, shelf, in_memory, metrics, wall=clock))
        return made[-1]

    yield _layer
    for cached in made:
        await cached.close()
