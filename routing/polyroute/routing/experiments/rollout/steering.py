"""Moves traffic between two variants of a route: pure functions over its rule."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from polyroute.core.config import LocalConfig, RolloutConfig
from polyroute.routing.experiments.records import Shares
from polyroute.routing.plan import Rule, Variant
from polyroute.routing.registry import Snapshot


def steer(snapshot: Snapshot, weights: Mapping[str, float]) -> Snapshot:
    """The snapshot with these shares of new versions, by route; itself where it has them already."""
    changed = {}
    for route, weight in weights.items():
        rule = snapshot.rules.get(route)
        if rule is not None and rule.rollout is not None:
            steered = weighted(rule, rule.rollout, weight)
            if steered != rule:
                changed[route] = steered
    return replace(snapshot, rules=MappingProxyType({**snapshot.rules, **changed})) if changed else snapshot


def weighted(rule: Rule, plan: RolloutConfig, weight: float) -> Rule:
    """The rule with the part `weight`, 0 to 1, of the traffic of both versions at the new one.

    Their variants share what both had together, and no other variant changes.
    """
    both = sum(variant.weight for variant in rule.variants if variant.name in (plan.from_, plan.to))
    return replace(rule, variants=tuple(_with_share(variant, plan, both, weight) for variant in rule.variants))


def share(shares: Shares, plan: RolloutConfig) -> float:
    """The new version's part, 0 to 1, of the traffic of both, where a route's traffic is divided so."""
    parts = dict(shares)
    old, new = parts.get(plan.from_, 0.0), parts.get(plan.to, 0.0)
    return new / (old + new) if new else 0.0


def version_of(rule: Rule, variant: str) -> str:
    """The deployment behind a variant of the rule."""
    return next(each.deployment for each in rule.variants if each.name == variant)


def identity(snapshot: Snapshot, rule: Rule, plan: RolloutConfig) -> str:
    """Which rollout it is: another one where it leads between other variants or models, or is another run.

    A digest; steps, guardrails and how the models are reached are not in it, so these may change on the way.
    """
    new = snapshot.deployments[version_of(rule, plan.to)].config
    weights = (new.source, new.revision, new.quantization) if isinstance(new, LocalConfig) else (new.peer_model,)
    parts = [plan.from_, plan.to, version_of(rule, plan.from_), new.id, new.version, *weights, plan.run]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def _with_share(variant: Variant, plan: RolloutConfig, both: float, weight: float) -> Variant:
    if variant.name == plan.to:
        return replace(variant, weight=both * weight)
    if variant.name == plan.from_:
        return replace(variant, weight=both * (1 - weight))
    return variant
