"""How routes divide their traffic is read at every scrape."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend
from polyroute.routing.experiments.rollout.steering import steer
from polyroute.routing.gateway import Gateway


def test_shares_follow_a_rollout(build: Callable[..., Gateway], registry: CollectorRegistry) -> None:
    rollout = {"from": "old", "to": "new", "steps": [{"weight": 0.1}]}
    variants = [{"name": "old", "model": "a"}, {"name": "new", "model": "b"}]
    models = [{"id": id, "type": "remote", "base_url": "http://h:1"} for id in ("a", "b")]
    config = {"models": models, "routes": [{"id": "r", "variants": variants, "rollout": rollout}]}
    gateway = build(config, {id: EchoBackend(id) for id in ("a", "b")})

    def share(variant: str) -> float | None:
        return registry.get_sample_value("polyroute_variant_share", {"route": "r", "variant": variant})

    assert (share("old"), share("new")) == (0.5, 0.5)
    gateway.swap(steer(gateway.snapshot, {"r": 0.25}))
    assert (share("old"), share("new")) == (0.75, 0.25)
    assert registry.get_sample_value("polyroute_variant_share", {"route": "a", "variant": ""}) is None
