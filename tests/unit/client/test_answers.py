"""A route and a plan say in words what they are."""

from __future__ import annotations

from polyroute.client import Attempt, AttemptError, CacheResult, ModelState, Plan, PlannedAttempt, PlannedShadow, Route


def test_a_route_says_who_answered_and_why() -> None:
    failed = Attempt("big", error=AttemptError("OVERLOADED", "`big`: 64 waiting, limit 64"))
    lost = Attempt("small", "http://gone:8000", error=AttemptError("PEER_UNREACHABLE", "cannot connect"))
    route = Route(
        requested="chat",
        model="small",
        version="v2",
        replica="http://peer:8000",
        variant="b",
        cache=CacheResult.MISS,
        attempts=(failed, lost, Attempt("small")),
        reasons=("`chat` is a route", "`small` is its fallback"),
        upstream=Route(requested="small", model="small", replica="worker-0", reasons=("named",)),
    )
    assert str(route).splitlines() == [
        "`chat` asked for; answered by `small` (version v2, variant b, replica http://peer:8000, cache miss)",
        "  tried big: OVERLOADED: `big`: 64 waiting, limit 64",
        "  tried small at http://gone:8000: PEER_UNREACHABLE: cannot connect",
        "  because `chat` is a route",
        "  because `small` is its fallback",
        "  upstream: answered by `small` (replica worker-0)",
        "    because named",
    ]


def test_a_hit_says_how_old_it_is() -> None:
    route = Route(requested="demo", model="demo", cache=CacheResult.HIT, cache_age_s=61.2)
    assert str(route) == "answered by `demo` (cache hit, stored 61 s ago)"
    assert str(Route()) == "answered by an unnamed model"


def test_a_plan_says_the_attempts_in_order() -> None:
    plan = Plan(
        "chat",
        (
            PlannedAttempt("big", "big", "v1", "a", state=ModelState.WARM, cache="cache: used, as temperature is 0"),
            PlannedAttempt("spare", "big", fallback=True, state=ModelState.COLD),
        ),
        (PlannedShadow("next", 0.05),),
        ("weights 1 to 0",),
    )
    assert str(plan).splitlines() == [
        "chat",
        "  1. big (variant a, version v1, warm, cache: used, as temperature is 0)",
        "  2. spare (fallback, model big, cold)",
        "  shadow next: 5.0% of requests",
        "  because weights 1 to 0",
    ]
