"""Which deployment a call falls to, and in which order the others follow."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyroute.core.call import Call
from polyroute.core.errors import InvalidArgument, PermissionDenied
from polyroute.core.request import Request, RoutingOptions
from polyroute.routing.plan import Decision, Layer, Rule, Variant, decide, fall, hash_point, shares


def model(name: str) -> Rule:
    return Rule(name, (Variant("", name),), direct=True)


def alias(name: str, of: str, *fallback: str) -> Rule:
    return Rule(name, (Variant("", of),), ("user",), fallback)


def route(name: str, weights: dict[str, float], *fallback: str, sticky_by: tuple[str, ...] = ("user",)) -> Rule:
    return Rule(name, tuple(Variant(v, f"model-{v}", w) for v, w in weights.items()), sticky_by, fallback)


def asks(name: str = "chat", headers: dict[str, str] | None = None, **routing: object) -> Call:
    request = Request(model=name, prompt="hi", routing=RoutingOptions(**routing))  # type: ignore[arg-type]
    return Call(request, "r1", headers=headers or {})


def plan(rule: Rule, call: Call, *others: Rule, failed: Collection[str] = ()) -> Decision:
    return decide(rule, call, rules(rule, *others), failed.__contains__)


def rules(*all_rules: Rule) -> dict[str, Rule]:
    return {rule.id: rule for rule in all_rules}


def test_a_model_is_its_own_only_step() -> None:
    decision = plan(model("m"), asks("m"))
    assert [step.deployment for step in decision.steps] == ["m"]
    assert decision.reasons == ("`m` is a model",)
    assert (decision.variant, decision.sticky_by, decision.hash_point, decision.probability) == ("", "", None, None)


def test_the_default_is_named_as_such() -> None:
    decision = plan(model("m"), asks(""))
    assert decision.requested == "m"
    assert decision.reasons[0] == "no model is named, so the default answers"


def test_a_route_says_what_it_was_keyed_on() -> None:
    chat = route("chat", {"a": 1, "b": 1})
    decision = plan(chat, asks(user="ada"))
    point = hash_point("chat", "ada")
    assert decision.hash_point == point
    assert decision.sticky_by == "user"
    assert decision.probability == 0.5
    assert decision.variant == fall(chat.variants, point).name
    assert decision.reasons == (
        "`chat` is a route with 2 variants",
        f"keyed on user: {point:.3f} falls to `{decision.variant}` (share 0.5)",
    )


def test_hash_points_never_change() -> None:
    """Whoever is in a variant stays there over releases and machines."""
    assert hash_point("chat", "ada") == 0.7927553400990336
    assert hash_point("chat2", "ada") == 0.1906799549328727
    assert hash_point("a", "bc") != hash_point("ab", "c")


HEADERS = {"x-tenant": "acme"}


@pytest.mark.parametrize(
    ("sticky_by", "routing", "keyed_on", "key"),
    [
        (("user", "session"), {"user": "u", "session": "s"}, "user", "u"),
        (("session", "user"), {"user": "u", "session": "s"}, "session", "s"),
        (("user", "session"), {"session": "s"}, "session", "s"),
        (("affinity_key",), {"user": "u", "affinity_key": "k"}, "affinity_key", "k"),
        (("request", "user"), {"user": "u"}, "request", "r1"),
        (("user",), {}, "request", "r1"),
        (("header:x-tenant", "user"), {"user": "u"}, "header:x-tenant", "acme"),
        (("header:x-other", "user"), {"user": "u"}, "user", "u"),
    ],
)
def test_the_first_key_that_the_request_has_decides(
    sticky_by: tuple[str, ...], routing: dict[str, str], keyed_on: str, key: str
) -> None:
    chat = route("chat", {"a": 1, "b": 1}, sticky_by=sticky_by)
    decision = plan(chat, asks(headers=HEADERS, **routing))
    assert (decision.sticky_by, decision.hash_point) == (keyed_on, hash_point("chat", key))


@given(st.text(), st.text())
def test_hash_points_lie_in_the_unit_interval(salt: str, key: str) -> None:
    assert 0 <= hash_point(salt, key) < 1


WEIGHTS = st.lists(st.floats(0.01, 100), min_size=1, max_size=6)
POINTS = [hash_point("chat", f"user-{i}") for i in range(1000)]


def variants_of(rule: Rule, points: Sequence[float]) -> list[str]:
    return [fall(rule.variants, point).name for point in points]


def numbered(weights: Sequence[float]) -> Rule:
    return route("r", {str(i): weight for i, weight in enumerate(weights)})


def assert_share(hits: int, count: int, share: float) -> None:
    """Within five standard deviations of a binomial; the keys are fixed, so this never changes."""
    assert abs(hits - count * share) <= 5 * math.sqrt(count * share * (1 - share))


def test_traffic_follows_the_weights() -> None:
    count = 20_000
    chat = route("chat", {"a": 5, "b": 3, "c": 2, "never": 0})
    seen = Counter(variants_of(chat, [hash_point("chat", f"user-{i}") for i in range(count)]))
    assert seen["never"] == 0
    for variant in chat.variants:
        assert_share(seen[variant.name], count, chat.share(variant))


@settings(derandomize=True)
@given(WEIGHTS)
def test_any_traffic_follows_any_weights(weights: list[float]) -> None:
    """Within six standard deviations, and two keys for the smallest shares; the examples are always the same."""
    rule, seen = numbered(weights), Counter(variants_of(numbered(weights), POINTS))
    for variant in rule.variants:
        share = rule.share(variant)
        assert abs(seen[variant.name] - len(POINTS) * share) <= 2 + 6 * math.sqrt(len(POINTS) * share * (1 - share))


def test_routes_split_independently_of_each_other() -> None:
    count = 10_000
    both = sum(hash_point("one", f"u{i}") < 0.5 and hash_point("two", f"u{i}") < 0.5 for i in range(count))
    assert_share(both, count, 0.25)


def test_a_variants_points_are_spread_over_all_of_the_interval() -> None:
    """So what is laid out along it later, such as a new version at its low end, takes its share of every variant."""
    chat = route("chat", {"a": 5, "b": 3, "c": 2})
    points = [hash_point("chat", f"user-{i}") for i in range(20_000)]
    for name in "abc":
        mine = [point for point in points if fall(chat.variants, point).name == name]
        assert_share(sum(point < 0.1 for point in mine), len(mine), 0.1)


@given(weights=WEIGHTS, changed=st.integers(0, 5), weight=st.floats(0, 1000))
def test_a_weight_that_changes_moves_the_keys_of_its_own_variant_alone(
    weights: list[float], changed: int, weight: float
) -> None:
    changed %= len(weights)
    after = [weight if i == changed else w for i, w in enumerate(weights)]
    if not any(after):
        return
    for old, new in zip(variants_of(numbered(weights), POINTS), variants_of(numbered(after), POINTS), strict=True):
        if old != new:
            assert str(changed) == (new if weight > weights[changed] else old)


@given(weights=WEIGHTS, weight=st.floats(0.01, 100))
def test_a_variant_that_comes_or_goes_moves_its_own_keys_alone(weights: list[float], weight: float) -> None:
    name = str(len(weights))
    less, more = variants_of(numbered(weights), POINTS), variants_of(numbered([*weights, weight]), POINTS)
    assert all(with_it in (name, without) for without, with_it in zip(less, more, strict=True))


@given(WEIGHTS, st.randoms(use_true_random=False))
def test_the_order_and_the_scale_of_weights_say_nothing(weights: list[float], order: random.Random) -> None:
    rule = numbered(weights)
    mixed = [replace(variant, weight=variant.weight * 4) for variant in rule.variants]
    order.shuffle(mixed)
    assert variants_of(rule, POINTS[:100]) == variants_of(replace(rule, variants=tuple(mixed)), POINTS[:100])


FALLEN = "aaabacababccabaacacacacbaabcababbacbaacabcababacaaaabaacabbb"


def test_equal_keys_get_equal_variants_in_every_process() -> None:
    """Python's own hashes differ from process to process; these must not, nor may they over releases."""
    script = (
        "from polyroute.routing.plan import Variant, fall, hash_point\n"
        "variants = tuple(Variant(name, name, weight) for name, weight in (('a', 5), ('b', 3), ('c', 2)))\n"
        "print(''.join(fall(variants, hash_point('chat', f'user-{i}')).name for i in range(60)))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert said == [FALLEN, FALLEN]


def test_a_pin_chooses_the_variant_and_draws_nothing() -> None:
    chat = route("chat", {"a": 1, "b": 0})
    decision = plan(chat, asks(user="ada", variant="b"))
    assert decision.steps[0].deployment == "model-b"
    assert (decision.hash_point, decision.probability, decision.sticky_by) == (None, None, "")
    assert decision.reasons[-1] == "pinned to `b` by the request"


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    chat = route("chat", {"a": 1, "b": 1})
    with pytest.raises(InvalidArgument, match=r"routing.variant: `chat` has no variant `c`; it has `a`, `b`"):
        plan(chat, asks(variant="c"))


def test_a_model_has_no_variants_to_pin() -> None:
    with pytest.raises(InvalidArgument, match=r"routing.variant: `m` is a model and has no variants"):
        plan(model("m"), asks("m", variant="a"))
    with pytest.raises(InvalidArgument, match=r"routing.variant: `fast` is another name of `m` and has no variants"):
        plan(alias("fast", "m"), asks("fast", variant="a"))


def test_an_alias_draws_nothing() -> None:
    decision = plan(alias("fast", "m", "n"), asks("fast", user="ada"), model("n"))
    assert [(step.deployment, step.variant) for step in decision.steps] == [("m", ""), ("n", "")]
    assert decision.reasons == ("`fast` is another name of `m`", "falls back to `n`")
    assert (decision.variant, decision.sticky_by, decision.hash_point, decision.probability) == ("", "", None, None)


def test_fallbacks_follow_in_order_nested_and_without_repeats() -> None:
    small = route("small", {"s": 1}, "m3", "model-a")
    chat = route("chat", {"a": 1}, "m2", "small", "m2")
    decision = plan(chat, asks(user="ada"), small, model("m2"), model("m3"), model("model-a"))
    assert [step.deployment for step in decision.steps] == ["model-a", "m2", "model-s", "m3"]
    assert [step.fallback for step in decision.steps] == [False, True, True, True]
    assert [step.variant for step in decision.steps] == ["a", "", "s", ""]
    assert decision.reasons[-1] == "falls back to `m2`, then `model-s`, then `m3`"


def test_a_request_may_refuse_fallbacks() -> None:
    chat = route("chat", {"a": 1}, "m2")
    decision = plan(chat, asks(no_fallback=True), model("m2"))
    assert len(decision.steps) == 1
    assert decision.reasons[-1] == "the request refuses fallbacks"


def test_an_equal_request_gets_an_equal_plan() -> None:
    chat = route("chat", {"a": 1, "b": 2}, "m2")
    assert plan(chat, asks(session="x"), model("m2")) == plan(chat, asks(session="x"), model("m2"))


def test_a_route_may_leave_a_cold_model_to_its_fallbacks_but_not_the_last() -> None:
    hurried = Rule("chat", (Variant("", "one"),), (), ("two", "three"), wait_for_load=False)
    decision = plan(hurried, asks(), model("two"), model("three"))
    assert [(step.deployment, step.wait_for_load) for step in decision.steps] == [
        ("one", False),
        ("two", False),
        ("three", True),
    ]
    assert "a model that is not loaded yet leaves the call to the next one" in decision.reasons
    alone = plan(hurried, asks(no_fallback=True), model("two"), model("three"))
    assert [step.wait_for_load for step in alone.steps] == [True]


def test_the_last_in_the_order_of_a_plan_waits_for_its_load_and_be_it_the_first_that_has_failed() -> None:
    hurried = Rule("chat", (Variant("", "one"),), (), ("two",), wait_for_load=False)
    decision = plan(hurried, asks(), model("two"), failed={"one"})
    assert [(step.deployment, step.wait_for_load) for step in decision.steps] == [("two", False), ("one", True)]


def test_what_has_failed_is_not_tried_first() -> None:
    chat = route("chat", {"a": 1}, "m2", "m3")
    decision = plan(chat, asks(user="ada"), model("m2"), model("m3"), failed={"model-a", "m2"})
    assert [step.deployment for step in decision.steps] == ["m3", "model-a", "m2"]
    assert [step.fallback for step in decision.steps] == [True, False, True]
    assert decision.variant == "a"
    assert decision.reasons[-2:] == (
        "falls back to `m2`, then `m3`",
        "`model-a` has no healthy replica, so `m3` is tried first",
    )


def test_where_all_have_failed_the_plan_keeps_its_order() -> None:
    chat = route("chat", {"a": 1}, "m2")
    decision = plan(chat, asks(user="ada"), model("m2"), failed={"model-a", "m2"})
    assert [step.deployment for step in decision.steps] == ["model-a", "m2"]
    assert decision.reasons[-1] == "neither `model-a` nor what it falls back to has a healthy replica"


MODELS = [f"m{i}" for i in range(6)]


@given(
    fallback=st.lists(st.sampled_from(MODELS), max_size=6),
    failed=st.sets(st.sampled_from([*MODELS, "model-a", "model-b"])),
    user=st.text(max_size=4),
    no_fallback=st.booleans(),
)
def test_no_plan_names_a_failed_model_first_while_another_of_its_steps_is_healthy(
    fallback: list[str], failed: set[str], user: str, no_fallback: bool
) -> None:
    chat = route("chat", {"a": 1, "b": 2}, *fallback)
    call = asks(user=user, no_fallback=no_fallback)
    decision = plan(chat, call, *map(model, MODELS), failed=failed)
    names = [step.deployment for step in decision.steps]
    assert names[0] not in failed or failed.issuperset(names)
    assert sorted(names) == sorted(s.deployment for s in plan(chat, call, *map(model, MODELS)).steps)


def test_a_holdout_keeps_its_share_of_keys_with_the_control_and_widening_it_brings_nobody_back() -> None:
    chat = Rule("chat", (Variant("a", "m-a"), Variant("b", "m-b")), ("user",), control="b", holdout=0.2)
    held = {}
    for share in (0.2, 0.5):
        decisions = [plan(replace(chat, holdout=share), asks(user=f"u{i}")) for i in range(4000)]
        held[share] = {i for i, decision in enumerate(decisions) if decision.held_out}
        assert len(held[share]) / 4000 == pytest.approx(share, abs=0.03)
        kept = decisions[min(held[share])]
        assert (kept.variant, kept.held_out, kept.sticky_by) == ("b", "holdout", "user")
        assert (kept.hash_point, kept.probability) == (None, None)
        assert kept.reasons[-1] == f"keyed on user: in the holdout of {share}, so it gets the control `b`"
        inside = Counter(decision.variant for decision in decisions if not decision.held_out)
        assert inside["a"] / sum(inside.values()) == pytest.approx(0.5, abs=0.04), (
            "the holdout says nothing of variants"
        )
    assert held[0.2] < held[0.5]


def test_routes_of_one_layer_exclude_each_other() -> None:
    arms = (Variant("a", "m-a"), Variant("b", "m-b"))
    low = Rule("low", arms, ("user",), layer=Layer("tone", 0.0, 0.5))
    high = Rule("high", arms, ("user",), layer=Layer("tone", 0.5, 1.0))
    for i in range(500):
        takes_part = [not plan(rule, asks(rule.id, user=f"u{i}")).held_out for rule in (low, high)]
        assert takes_part.count(True) == 1
    outside = next(d for d in (plan(low, asks("low", user=f"u{i}")) for i in range(50)) if d.held_out)
    assert (outside.variant, outside.held_out) == ("a", "layer")
    assert "of the layer `tone` is outside of this route's part, so it gets the control `a`" in outside.reasons[-1]


def test_a_route_may_refuse_pins() -> None:
    chat = replace(route("chat", {"a": 1}), allow_pin=False)
    with pytest.raises(PermissionDenied, match=r"routing.variant: `chat` lets no request choose its variant"):
        plan(chat, asks(variant="a"))


def test_a_pin_goes_before_a_holdout() -> None:
    chat = Rule("chat", (Variant("a", "m-a"), Variant("b", "m-b")), ("user",), holdout=0.99)
    assert plan(chat, asks(user="ada", variant="b")).variant == "b"


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8).filter(lambda weights: sum(weights) > 0))
def test_shares_add_up(weights: list[float]) -> None:
    arms = tuple(Variant(f"v{i}", "m", weight) for i, weight in enumerate(weights))
    assert math.fsum(share for _, share in shares(arms)) == pytest.approx(1.0)
