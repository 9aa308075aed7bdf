"""Traffic moves from one version to the next: nobody is moved back, and nobody of another variant at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.backends.echo import EchoBackend
from polyroute.core.config import RolloutConfig
from polyroute.routing.experiments.rollout.steering import identity, steer, weighted
from polyroute.routing.gateway import Gateway
from polyroute.routing.plan import Rule, Variant, hash_point, variant_at
from polyroute.routing.registry import Snapshot

PLAN = RolloutConfig.model_validate({"from": "old", "to": "new", "steps": [{"weight": 0.1}, {"weight": 0.5}]})
RULE = Rule("r", (Variant("old", "a", 3.0), Variant("other", "c", 2.0), Variant("new", "b", 0.0)), rollout=PLAN)
KEYS = [hash_point("r", f"user {i}") for i in range(2_000)]
weights = st.floats(0, 1)


def fallen(weight: float) -> list[str]:
    rule = weighted(RULE, PLAN, weight)
    return [variant_at(rule, point).name for point in KEYS]


@given(weights, weights)
def test_a_version_that_grows_takes_from_the_old_one_alone(one: float, other: float) -> None:
    before, after = fallen(min(one, other)), fallen(max(one, other))
    moves = {(a, b) for a, b in zip(before, after, strict=True) if a != b}
    assert moves <= {("old", "new")}


@pytest.mark.parametrize("weight", [0.0, 0.05, 0.5, 1.0])
def test_each_version_has_its_part_of_what_both_have(weight: float) -> None:
    counts = Counter(fallen(weight))
    assert counts["other"] / len(KEYS) == pytest.approx(0.4, abs=0.03)
    assert counts["new"] / len(KEYS) == pytest.approx(0.6 * weight, abs=0.03)
    rule = weighted(RULE, PLAN, weight)
    assert [rule.share(variant) for variant in rule.variants] == pytest.approx([0.6 * (1 - weight), 0.4, 0.6 * weight])


@given(weights, weights)
def test_what_it_was_before_says_nothing(one: float, other: float) -> None:
    twice = weighted(weighted(RULE, PLAN, one), PLAN, other)
    assert [v.weight for v in twice.variants] == pytest.approx([v.weight for v in weighted(RULE, PLAN, other).variants])


@pytest.fixture
def snapshot(build: Callable[..., Gateway]) -> Snapshot:
    rollout = {"from": "old", "to": "new", "steps": [{"weight": 0.1}]}
    variants = [{"name": "old", "model": "a"}, {"name": "new", "model": "b"}]
    models = [{"id": id, "type": "remote", "base_url": "http://h:1"} for id in ("a", "b")]
    config = {"models": models, "routes": [{"id": "r", "variants": variants, "rollout": rollout}]}
    return build(config, {id: EchoBackend(id) for id in ("a", "b")}).snapshot


def test_a_snapshot_is_steered_by_route_and_stays_itself_where_nothing_changes(snapshot: Snapshot) -> None:
    steered = steer(snapshot, {"r": 0.25, "a": 0.5, "gone": 0.5})
    assert [v.weight for v in steered.rules["r"].variants] == [1.5, 0.5]
    assert steered.rules["a"] is snapshot.rules["a"]
    assert steer(steered, {"r": 0.25}) is steered


def test_a_rollout_is_another_one_by_its_variants_models_and_run_and_not_by_its_steps(snapshot: Snapshot) -> None:
    def name(**keys: object) -> str:
        plan = RolloutConfig.model_validate({"from": "old", "to": "new", "steps": [{"weight": 0.1}]} | keys)
        return identity(snapshot, snapshot.rules["r"], plan)

    assert name() == name(steps=[{"weight": 0.3}], false_rollbacks=0.1)
    assert len({name(), name(run=2), name(**{"from": "new", "to": "old"})}) == 3
