"""The layers around every backend, in the one order that they have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from polyroute.core.backend import Backend, Facts
from polyroute.core.call import Service
from polyroute.core.config import CacheConfig, LocalConfig, ModelConfig
from polyroute.core.embedder import Embedder
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.shelf import Shelf
from polyroute.routing.layers.bounded import Bounded
from polyroute.routing.layers.cached import Cached
from polyroute.routing.layers.limited import Limited
from polyroute.routing.layers.semantic import Semantic
from polyroute.routing.metrics import Metrics
from polyroute.routing.occupancy import Occupancy
from polyroute.routing.permits import AnyPermits
from polyroute.routing.registry import Deployment, fingerprint, permits_for

PermitsFor: TypeAlias = Callable[[ModelConfig, Callable[[], Facts]], AnyPermits]
"""Makes the permits of a configuration, over what its backend says of itself."""


def deploy(
    config: ModelConfig,
    backend: Backend,
    *,
    answers: Answers,
    metrics: Metrics,
    embedder: Embedder | None = None,
    before: Deployment | None = None,
    permits_for: PermitsFor = permits_for,
) -> Deployment:
    """A deployment of `backend`, to take the place of `before`, the one that the model has now.

    `embedder` makes the vectors of the semantic cache, where the configuration has that on. `permits_for` makes the
    permits, where the model has none yet.

    What counts goes on: the cache's statistics and shared runs; the permits, where the backend is the same or is a
    peer, whose calls in flight occupy it whoever sent them; the occupancy, where the backend is the same.
    """
    kept = before is not None and before.backend is backend
    local = isinstance(config, LocalConfig)
    shared = before is not None and (kept or not (local or before.local))
    permits = before.permits if before is not None and shared else permits_for(config, backend.facts)
    shelf = Shelf(
        model=config.id,
        local=local,
        fingerprint=fingerprint(config),
        config=config.cache or CacheConfig(),
        facts=backend.facts,
    )
    service: Service = backend.stream
    # From the inside out; a call passes them in the opposite order.
    # Times: waiting for the model is bounded, waiting in the queue is not the model's fault.
    service = Bounded(service, config.id, timeout_s=config.timeout)
    # Permits: what reaches the backend holds one until its stream closes.
    service = Limited(service, permits, metrics)
    # Semantic cache, where it is on: what has no stored answer of its own may get another's.
    semantic = None
    if embedder is not None and shelf.config.semantic.mode != "off":
        lore = before.semantic.lore if before is not None and before.semantic is not None else None
        semantic = service = Semantic(service, shelf, answers, embedder, metrics, before=lore)
    # Cache: a hit neither waits nor holds a permit.
    occupancy = before.occupancy if before is not None and kept else Occupancy()
    ledger = before.cached.ledger if before is not None else None
    cached = Cached(service, shelf, answers, metrics, ledger=ledger, occupancy=occupancy)
    return Deployment(config, backend, permits, shelf, cached, cached, occupancy, semantic)
