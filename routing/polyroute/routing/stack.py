"""The layers around every backend, in the one order that they have."""

from __future__ import annotations

from polyroute.core.backend import Backend
from polyroute.core.call import Service
from polyroute.core.config import CacheConfig, LocalConfig, ModelConfig
from polyroute.routing.cache.codec import Codec
from polyroute.routing.cache.store import AnswerStore
from polyroute.routing.layers.bounded import Bounded
from polyroute.routing.layers.cached import Cached, Shelf
from polyroute.routing.layers.limited import Limited
from polyroute.routing.metrics import Metrics
from polyroute.routing.registry import Deployment, fingerprint, permits_for


def deploy(
    config: ModelConfig,
    backend: Backend,
    *,
    cache: CacheConfig,
    store: AnswerStore,
    codec: Codec,
    metrics: Metrics,
) -> Deployment:
    """A deployment of `backend`; `cache` holds where the model's own configuration has none."""
    permits = permits_for(config, backend.status)
    shelf = Shelf(
        model=config.id,
        local=isinstance(config, LocalConfig),
        fingerprint=fingerprint(config),
        config=config.cache or cache,
        status=backend.status,
    )
    service: Service = backend.stream
    # From the inside out; a call passes them in the opposite order.
    # Times: waiting for the model is bounded, waiting in the queue is not the model's fault.
    service = Bounded(service, config.id, timeout_s=config.timeout)
    # Permits: what reaches the backend holds one until its stream closes.
    service = Limited(service, permits)
    # Cache: a hit neither waits nor holds a permit.
    cached = Cached(service, shelf, store, codec, metrics)
    return Deployment(config, backend, permits, shelf, cached, cached)
