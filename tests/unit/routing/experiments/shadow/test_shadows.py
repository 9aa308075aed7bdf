"""Copies are made beside calls, cost their callers nothing, and are compared with what those got."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.errors import PeerFailed, PolyrouteError
from polyroute.core.event import Finished, Started
from polyroute.core.request import CacheMode, CacheOptions, Request, RoutingOptions, Sampling
from polyroute.core.trace import SAMPLED, Span, Trace, new_trace_id
from polyroute.routing.experiments.records import CallRecord
from polyroute.routing.experiments.shadow import shadows as module
from polyroute.routing.experiments.shadow.lane import FAILURES, REST_S, Lane
from polyroute.routing.experiments.shadow.pair import Pair
from polyroute.routing.experiments.shadow.shadows import Shadows
from polyroute.routing.gateway import Gateway
from polyroute.routing.metrics import Metrics
from polyroute.routing.plan import Rule, Shadow, Variant, decide

CONFIG: dict[str, Any] = {
    "models": [{"id": name, "type": "remote", "base_url": f"http://{name}:1"} for name in ("one", "two")],
    "default_model": "chat",
    "routes": [{"id": "chat", "model": "one", "shadow": [{"model": "two", "max_concurrency": 2, "max_queue": 1}]}],
}
NAMES = ("two", "three")
ASKS = Request(model="chat", prompt="a b", cache=CacheOptions(CacheMode.BYPASS))


class Kept:
    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.records: list[CallRecord] = []

    def paired(self, pair: Pair) -> None:
        self.pairs.append(pair)

    def recorded(self, record: CallRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def backends() -> dict[str, EchoBackend]:
    return {name: EchoBackend(name) for name in ("one", "two")}


@pytest.fixture
async def shadows(kept: Kept, metrics: Metrics) -> AsyncIterator[Shadows]:
    shadows = Shadows(kept, metrics)
    yield shadows
    await shadows.close()


@pytest.fixture
def gateway(build: Callable[..., Gateway], backends: dict[str, EchoBackend], kept: Kept, shadows: Shadows) -> Gateway:
    return build(CONFIG, backends, kept, shadows)


@pytest.fixture
def ask(gateway: Gateway, take: Callable[..., Any]) -> Callable[..., Any]:
    async def _ask(request_id: str = "r1", most: int | None = None, **changes: Any) -> list[Any]:
        return list(await take(gateway.generate, Call(replace(ASKS, **changes), request_id), most))

    return _ask


async def test_a_copy_of_the_same_weights_shows_no_divergence(
    ask: Callable[..., Any], kept: Kept, backends: dict[str, EchoBackend], until: Callable[..., Any]
) -> None:
    for i in range(20):
        await ask(f"r{i}")
        await until(lambda count=i + 1: len(kept.pairs) == count)
    assert all(p.exact and p.edit_distance == 0 and p.same_finish and p.length_ratio == 1 for p in kept.pairs)
    assert all(p.first_token_ratio and p.total_ratio for p in kept.pairs)
    assert {(p.missing, p.caller_outcome, p.copy_outcome) for p in kept.pairs} == {("", "ok", "ok")}
    assert [p.pair_id for p in kept.pairs] == [r.pair_id for r in kept.records]
    assert len({p.pair_id for p in kept.pairs}) == 20
    assert (kept.pairs[0].prompt, kept.pairs[0].caller_text, kept.pairs[0].copy_text) == ("", "", "")
    assert all(call.copy and not call.wait_for_load for call in backends["two"].calls)
    assert not any(call.copy for call in backends["one"].calls)


async def test_content_is_kept_where_the_route_says_so(
    build: Callable[..., Gateway],
    backends: dict[str, EchoBackend],
    kept: Kept,
    shadows: Shadows,
    take: Callable[..., Any],
    until: Callable[..., Any],
) -> None:
    route = CONFIG["routes"][0] | {"record_content": True}
    await take(build(CONFIG | {"routes": [route]}, backends, kept, shadows).generate, Call(ASKS, "r1"))
    await until(lambda: kept.pairs)
    assert (kept.pairs[0].prompt, kept.pairs[0].caller_text, kept.pairs[0].copy_text) == ("a b",) * 3


async def test_another_answer_is_measured(
    ask: Callable[..., Any], kept: Kept, backends: dict[str, EchoBackend], until: Callable[..., Any]
) -> None:
    backends["two"].script = Script(texts=["a", " c", " d", " e"])
    await ask()
    await until(lambda: kept.pairs)
    (pair,) = kept.pairs
    assert (pair.exact, pair.edit_distance, pair.length_ratio) == (False, 0.75, 2.0)


async def test_a_copy_sets_off_only_after_its_callers_first_event(
    gateway: Gateway, backends: dict[str, EchoBackend], kept: Kept, until: Callable[..., Any]
) -> None:
    gate = asyncio.Event()
    backends["one"].script = Script(texts=["a", "b"], gate=gate, gate_after=1)
    events = gateway.generate(Call(ASKS, "r1"))
    assert isinstance(await anext(events), Started)
    await asyncio.sleep(0)
    assert not backends["two"].calls
    following = asyncio.ensure_future(anext(events))
    await until(lambda: backends["two"].completed)
    assert not kept.pairs, "the pair waits for the caller's side"
    gate.set()
    await following
    async for _ in events:
        pass
    await until(lambda: kept.pairs)


@pytest.mark.parametrize("script", [Script(error=PeerFailed("no")), Script(error=RuntimeError("bug"))])
async def test_a_failing_copy_is_an_asymmetry_and_no_callers_trouble(
    ask: Callable[..., Any],
    kept: Kept,
    backends: dict[str, EchoBackend],
    until: Callable[..., Any],
    script: Script,
    registry: CollectorRegistry,
) -> None:
    backends["two"].script = script
    for i in range(FAILURES + 2):
        assert isinstance((await ask(f"r{i}"))[-1], Finished)
        await until(lambda count=i + 1: len(kept.pairs) == count)
    failed, refused = kept.pairs[:FAILURES], kept.pairs[FAILURES:]
    assert {pair.copy_outcome for pair in failed} < {"PEER_FAILED", "INTERNAL"}
    assert {pair.missing for pair in refused} == {"breaker_open"}
    assert len(backends["two"].calls) == FAILURES, "neither tried again nor asked while the breaker is open"


async def test_a_hung_copy_fills_its_own_lane_alone(
    ask: Callable[..., Any], kept: Kept, backends: dict[str, EchoBackend], until: Callable[..., Any], shadows: Shadows
) -> None:
    backends["two"].script = Script(gate=asyncio.Event())
    for i in range(6):
        assert isinstance((await ask(f"r{i}"))[-1], Finished)
    await until(lambda: len(backends["two"].calls) == 2)
    assert [pair.missing for pair in kept.pairs] == ["queue_full"] * 3
    await shadows.close()
    assert [pair.missing for pair in kept.pairs[3:]] == ["stopped"] * 3
    assert backends["two"].open == 0


async def test_a_copy_whose_turn_does_not_come_in_time_is_not_made(
    build: Callable[..., Gateway],
    backends: dict[str, EchoBackend],
    kept: Kept,
    shadows: Shadows,
    take: Callable[..., Any],
    until: Callable[..., Any],
) -> None:
    shadow = {"model": "two", "max_concurrency": 1, "max_queue": 1, "timeout": 0.02}
    gateway = build(CONFIG | {"routes": [CONFIG["routes"][0] | {"shadow": [shadow]}]}, backends, kept, shadows)
    lane = Lane(Shadow("two", 1.0, max_concurrency=1, max_queue=1, timeout_s=0.02))
    shadows._lanes["chat", "two"] = lane
    await lane.enter()  # as if another copy had the one permit, for longer than the deadline
    await take(gateway.generate, Call(ASKS, "r1"))
    await until(lambda: kept.pairs)
    assert [pair.missing for pair in kept.pairs] == ["queue_timeout"]
    assert not backends["two"].calls
    await until(lambda: not lane.inside)
    assert lane.running == 1


async def test_a_copy_that_our_own_bug_ends_is_counted_and_leaves_its_place(
    ask: Callable[..., Any],
    kept: Kept,
    until: Callable[..., Any],
    shadows: Shadows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_sides: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(module, "compared", broken)
    assert isinstance((await ask())[-1], Finished)
    await until(lambda: kept.pairs)
    assert [pair.missing for pair in kept.pairs] == ["crashed"]
    monkeypatch.undo()
    await ask("r2")
    await until(lambda: len(kept.pairs) == 2)
    assert (kept.pairs[1].missing, kept.pairs[1].exact) == ("", True)


async def test_a_copy_has_a_deadline_of_its_own(
    build: Callable[..., Gateway],
    backends: dict[str, EchoBackend],
    kept: Kept,
    shadows: Shadows,
    take: Callable[..., Any],
    until: Callable[..., Any],
) -> None:
    route = CONFIG["routes"][0] | {"shadow": [{"model": "two", "timeout": 0.02}]}
    gateway = build(CONFIG | {"routes": [route]}, backends, kept, shadows)
    backends["two"].script = Script(gate=asyncio.Event())
    await take(gateway.generate, Call(ASKS, "r1"))
    await until(lambda: kept.pairs)
    assert [pair.copy_outcome for pair in kept.pairs] == ["DEADLINE_EXCEEDED"]


async def test_a_caller_that_leaves_takes_its_copy_along(
    gateway: Gateway, backends: dict[str, EchoBackend], kept: Kept, until: Callable[..., Any], take: Callable[..., Any]
) -> None:
    backends["two"].script = Script(gate=asyncio.Event())
    backends["one"].script = Script(texts=["a", "b", "c"])
    events: Any = gateway.generate(Call(ASKS, "r1"))
    await anext(events)
    await anext(events)
    await until(lambda: backends["two"].open)
    await events.aclose()
    await until(lambda: kept.pairs)
    assert [pair.missing for pair in kept.pairs] == ["caller_left"]
    await until(lambda: not backends["two"].open)


async def test_a_caller_whose_answer_breaks_off_is_the_other_asymmetry(
    ask: Callable[..., Any], kept: Kept, backends: dict[str, EchoBackend], until: Callable[..., Any]
) -> None:
    backends["one"].script = Script(texts=["a", "b"], error=PeerFailed("no"), error_after=1)
    with pytest.raises(PolyrouteError):
        await ask()
    await until(lambda: kept.pairs)
    assert [(pair.caller_outcome, pair.copy_outcome, pair.exact) for pair in kept.pairs] == [
        ("PEER_FAILED", "ok", None)
    ]


async def test_a_call_that_never_began_to_be_answered_has_no_copy(
    ask: Callable[..., Any], kept: Kept, backends: dict[str, EchoBackend]
) -> None:
    backends["one"].script = Script(error=PeerFailed("no"))
    with pytest.raises(PolyrouteError):
        await ask()
    assert [pair.missing for pair in kept.pairs] == ["caller_failed"]
    assert not backends["two"].calls


async def test_a_model_that_is_not_loaded_is_not_loaded_for_a_copy(
    ask: Callable[..., Any], kept: Kept, backends: dict[str, EchoBackend], until: Callable[..., Any]
) -> None:
    backends["two"].state = ModelState.COLD
    await ask()
    await until(lambda: kept.pairs)
    assert [pair.missing for pair in kept.pairs] == ["not_loaded"]
    assert not backends["two"].calls


async def test_copies_leave_a_deployments_places_to_its_own_callers(
    build: Callable[..., Gateway],
    backends: dict[str, EchoBackend],
    kept: Kept,
    shadows: Shadows,
    take: Callable[..., Any],
    until: Callable[..., Any],
) -> None:
    models = [CONFIG["models"][0], CONFIG["models"][1] | {"max_concurrency": 1}]
    gateway = build(CONFIG | {"models": models}, backends, kept, shadows)
    gate = asyncio.Event()
    backends["two"].script = Script(gate=gate)
    own = asyncio.create_task(take(gateway.generate, Call(replace(ASKS, model="two"), "own")))
    await until(lambda: backends["two"].open)
    await take(gateway.generate, Call(ASKS, "r1"))
    await until(lambda: kept.pairs)
    assert [pair.missing for pair in kept.pairs] == ["busy"]
    gate.set()
    await own


async def test_a_request_may_refuse_copies(ask: Callable[..., Any], kept: Kept, gateway: Gateway) -> None:
    await ask(routing=RoutingOptions(no_shadow=True))
    assert not kept.records, "a route without variants is recorded for its copies alone"
    plan = gateway.explain(Call(ASKS, "r1"))
    assert [(shadow.deployment, shadow.sample) for shadow in plan.shadows] == [("two", 1.0)]
    assert "`two` gets copies of 1 of the calls" in plan.reasons
    refused = gateway.explain(Call(replace(ASKS, routing=RoutingOptions(no_shadow=True)), "r1"))
    assert refused.shadows == ()
    assert "the request refuses shadows" in refused.reasons


def test_a_sample_draws_by_request_and_always_the_same() -> None:
    rule = Rule("chat", (Variant("", "one"),), shadows=(Shadow("two", 0.1), Shadow("three", 0.5)))
    decisions = [decide(rule, Call(ASKS, f"r{i}"), {}, lambda _: False) for i in range(4000)]
    drawn = {
        name: {i for i, d in enumerate(decisions) if any(c.deployment == name for c in d.copies)} for name in NAMES
    }
    assert len(drawn["two"]) == pytest.approx(400, abs=80)
    assert len(drawn["three"]) == pytest.approx(2000, abs=150)
    assert len(drawn["two"] & drawn["three"]) == pytest.approx(200, abs=60), "shadows draw independently"
    assert decisions == [decide(rule, Call(ASKS, f"r{i}"), {}, lambda _: False) for i in range(4000)]


async def test_an_answer_from_the_cache_is_compared_but_for_its_times(
    ask: Callable[..., Any],
    kept: Kept,
    until: Callable[..., Any],
    gateway: Gateway,
    backends: dict[str, EchoBackend],
) -> None:
    fresh: dict[str, Any] = {"cache": CacheOptions(), "sampling": Sampling(temperature=0)}
    for _ in range(2):
        await ask(**fresh)
    await until(lambda: len(kept.pairs) == 2)
    assert [record.cache for record in kept.records] == ["MISS", "HIT"]
    assert [pair.exact for pair in kept.pairs] == [True, True]
    assert [pair.total_ratio is None for pair in kept.pairs] == [False, True]
    assert len(backends["two"].calls) == 2, "a copy asks no cache and leaves nothing there"
    stats = await gateway.cache_stats("two")
    assert [(m.hits, m.misses, m.stores) for m in stats.models] == [(0, 0, 0)]


async def test_a_copy_has_a_trace_of_its_own_that_links_to_its_callers(
    gateway: Gateway, kept: Kept, take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    ended: list[Span] = []
    root = Trace(new_trace_id(), "", SAMPLED)
    span = Span("call", "server", root, ended.append, {})
    await take(gateway.generate, Call(ASKS, "r1", trace=root.under(span)))
    await until(lambda: kept.pairs)
    copy = next(each for each in ended if each.name == "shadow")
    assert copy.trace_id != span.trace_id
    assert copy.link is not None
    assert copy.link.trace_id == span.trace_id
    assert copy.attributes["polyroute.pair_id"] == kept.pairs[0].pair_id
    assert copy.attributes["polyroute.outcome"] == "ok"


async def test_a_lane_rests_after_failures_in_a_row_and_opens_again() -> None:
    lane = Lane(Shadow("two", 1.0))
    for _ in range(FAILURES - 1):
        lane.ended(False, 0.0)
    lane.ended(True, 0.0)
    assert lane.admit(0.0) == ""
    for _ in range(FAILURES):
        lane.ended(False, 10.0)
    assert lane.admit(10.0 + REST_S - 1) == "breaker_open"
    assert lane.admit(10.0 + REST_S) == ""
