"""Which deployment a call falls to, and in which order the others follow."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.core.errors import InvalidArgument
from polyroute.core.request import Request, RoutingOptions
from polyroute.routing.plan import Rule, Variant, decide, fall, hash_point


def model(name: str) -> Rule:
    return Rule(name, (Variant("", name, 1.0),), direct=True)


def route(name: str, weights: dict[str, float], *fallback: str, sticky_by: tuple[str, ...] = ("user",)) -> Rule:
    total = sum(weights.values())
    variants = tuple(Variant(v, f"model-{v}", w / total) for v, w in weights.items())
    return Rule(name, variants, sticky_by, fallback)  # type: ignore[arg-type]


def asks(name: str = "chat", **routing: object) -> Request:
    return Request(model=name, prompt="hi", routing=RoutingOptions(**routing))  # type: ignore[arg-type]


def rules(*all_rules: Rule) -> dict[str, Rule]:
    return {rule.id: rule for rule in all_rules}


def test_a_model_is_its_own_only_step() -> None:
    decision = decide(model("m"), asks("m"), "r1", {})
    assert [step.deployment for step in decision.steps] == ["m"]
    assert decision.reasons == ("`m` is a model",)
    assert (decision.variant, decision.sticky_by, decision.hash_point, decision.probability) == ("", "", None, None)


def test_the_default_is_named_as_such() -> None:
    decision = decide(model("m"), Request(prompt="hi"), "r1", {})
    assert decision.requested == "m"
    assert decision.reasons[0] == "no model is named, so the default answers"


def test_a_route_says_what_it_was_keyed_on() -> None:
    chat = route("chat", {"a": 1, "b": 1})
    decision = decide(chat, asks(user="ada"), "r1", rules(chat))
    point = hash_point("chat", "ada")
    assert decision.hash_point == point
    assert decision.sticky_by == "user"
    assert decision.probability == 0.5
    assert decision.variant == ("a" if point < 0.5 else "b")
    assert decision.reasons == (
        "`chat` is a route with 2 variants",
        f"keyed on user: {point:.3f} falls to `{decision.variant}` (share 0.5)",
    )


def test_hash_points_never_change() -> None:
    """Whoever is in a variant stays there over releases and machines."""
    assert hash_point("chat", "ada") == 0.7927553400990336
    assert hash_point("chat2", "ada") == 0.1906799549328727
    assert hash_point("a", "bc") != hash_point("ab", "c")


@pytest.mark.parametrize(
    ("sticky_by", "routing", "keyed_on", "key"),
    [
        (("user", "session"), {"user": "u", "session": "s"}, "user", "u"),
        (("session", "user"), {"user": "u", "session": "s"}, "session", "s"),
        (("user", "session"), {"session": "s"}, "session", "s"),
        (("affinity_key",), {"user": "u", "affinity_key": "k"}, "affinity_key", "k"),
        (("request", "user"), {"user": "u"}, "request", "r1"),
        (("user",), {}, "request", "r1"),
    ],
)
def test_the_first_key_that_the_request_has_decides(
    sticky_by: tuple[str, ...], routing: dict[str, str], keyed_on: str, key: str
) -> None:
    chat = route("chat", {"a": 1, "b": 1}, sticky_by=sticky_by)
    decision = decide(chat, asks(**routing), "r1", rules(chat))
    assert (decision.sticky_by, decision.hash_point) == (keyed_on, hash_point("chat", key))


@given(st.text(), st.text())
def test_hash_points_lie_in_the_unit_interval(salt: str, key: str) -> None:
    assert 0 <= hash_point(salt, key) < 1


def test_traffic_follows_the_weights() -> None:
    """Within five standard deviations of a binomial; the keys are fixed, so this never changes."""
    count = 20_000
    chat = route("chat", {"a": 5, "b": 3, "c": 2, "never": 0})
    seen = Counter(fall(chat.variants, hash_point("chat", f"user-{i}")).name for i in range(count))
    assert seen["never"] == 0
    for variant in chat.variants:
        spread = 5 * math.sqrt(count * variant.share * (1 - variant.share))
        assert abs(seen[variant.name] - count * variant.share) <= spread


def test_routes_split_independently_of_each_other() -> None:
    count = 10_000
    both = sum(hash_point("one", f"u{i}") < 0.5 and hash_point("two", f"u{i}") < 0.5 for i in range(count))
    assert abs(both - count / 4) <= 5 * math.sqrt(count * 0.25 * 0.75)


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
    grown=st.integers(0, 5),
    factor=st.floats(1, 50),
    point=st.floats(0, 1, exclude_max=True),
)
def test_nobody_leaves_a_variant_whose_weight_grows(
    weights: list[float], grown: int, factor: float, point: float
) -> None:
    grown %= len(weights)
    before = route("r", {str(i): w for i, w in enumerate(weights)})
    after = route("r", {str(i): w * factor if i == grown else w for i, w in enumerate(weights)})
    if fall(before.variants, point).name == str(grown):
        edges = [sum(v.share for v in rule.variants[:n]) for rule in (before, after) for n in range(len(weights) + 1)]
        if all(abs(point - edge) > 1e-9 for edge in edges):  # rounding may move an edge by a hair
            assert fall(after.variants, point).name == str(grown)


@given(st.floats(0, 1, exclude_max=True), st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_every_point_falls_somewhere_with_a_share(point: float, weights: list[float]) -> None:
    if sum(weights) > 1e-6:
        rule = route("r", {str(i): w for i, w in enumerate(weights)})
        assert fall(rule.variants, point).share > 0


def test_a_pin_chooses_the_variant_and_draws_nothing() -> None:
    chat = route("chat", {"a": 1, "b": 0})
    decision = decide(chat, asks(user="ada", variant="b"), "r1", rules(chat))
    assert decision.steps[0].deployment == "model-b"
    assert (decision.hash_point, decision.probability, decision.sticky_by) == (None, None, "")
    assert decision.reasons[-1] == "pinned to `b` by the request"


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    chat = route("chat", {"a": 1, "b": 1})
    with pytest.raises(InvalidArgument, match=r"routing.variant: `chat` has no variant `c`; it has `a`, `b`"):
        decide(chat, asks(variant="c"), "r1", rules(chat))


def test_a_model_has_no_variants_to_pin() -> None:
    with pytest.raises(InvalidArgument, match=r"routing.variant: `m` is a model and has no variants"):
        decide(model("m"), asks("m", variant="a"), "r1", {})


def test_fallbacks_follow_in_order_nested_and_without_repeats() -> None:
    small = route("small", {"s": 1}, "m3", "model-a")
    chat = route("chat", {"a": 1}, "m2", "small", "m2")
    known = rules(chat, small, model("m2"), model("m3"), model("model-a"))
    decision = decide(chat, asks(user="ada"), "r1", known)
    assert [step.deployment for step in decision.steps] == ["model-a", "m2", "model-s", "m3"]
    assert [step.fallback for step in decision.steps] == [False, True, True, True]
    assert [step.variant for step in decision.steps] == ["a", "", "s", ""]
    assert decision.reasons[-1] == "falls back to `m2`, then `model-s`, then `m3`"


def test_a_request_may_refuse_fallbacks() -> None:
    chat = route("chat", {"a": 1}, "m2")
    decision = decide(chat, asks(no_fallback=True), "r1", rules(chat, model("m2")))
    assert len(decision.steps) == 1
    assert decision.reasons[-1] == "the request refuses fallbacks"


def test_an_equal_request_gets_an_equal_plan() -> None:
    chat = route("chat", {"a": 1, "b": 2}, "m2")
    known = rules(chat, model("m2"))
    assert decide(chat, asks(session="x"), "r1", known) == decide(chat, asks(session="x"), "r1", known)


def test_a_route_may_leave_a_cold_model_to_its_fallbacks_but_not_the_last() -> None:
    hurried = Rule("chat", (Variant("", "one", 1.0),), (), ("two", "three"), wait_for_load=False)
    known = rules(hurried, model("two"), model("three"))
    decision = decide(hurried, asks(), "r1", known)
    assert [(step.deployment, step.wait_for_load) for step in decision.steps] == [
        ("one", False),
        ("two", False),
        ("three", True),
    ]
    assert "a model that is not loaded yet leaves the call to the next one" in decision.reasons
    alone = decide(hurried, asks(no_fallback=True), "r1", known)
    assert [step.wait_for_load for step in alone.steps] == [True]
