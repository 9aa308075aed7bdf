"""The gateway: calls, plans, states, drain and the cache, over scripted models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.pool import Pool
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.config import DeploymentConfig
from polyroute.core.errors import (
    DeadlineExceeded,
    Draining,
    InvalidArgument,
    ModelFailed,
    Overloaded,
    PeerFailed,
    UnknownModel,
)
from polyroute.core.event import CacheResult, Token
from polyroute.core.request import CacheMode, CacheOptions, Request, RoutingOptions, Sampling
from polyroute.routing.gateway import Gateway
from polyroute.routing.views import MemoryView
from tests.counts import total
from tests.lines import captured_lines

CONFIG = {
    "default_model": "chat",
    "models": [
        {"id": "one", "type": "local", "max_concurrency": 1, "max_queue": 1},
        {"id": "two", "type": "remote", "base_url": "http://two:1"},
    ],
    "routes": [
        {
            "id": "chat",
            "variants": [{"name": "a", "model": "one", "weight": 9}, {"name": "b", "model": "two", "weight": 1}],
            "fallback": ["two"],
        }
    ],
}


@pytest.fixture
def backends() -> dict[str, EchoBackend]:
    return {name: EchoBackend(name) for name in ("one", "two")}


@pytest.fixture
def gateway(build: Callable[..., Gateway], backends: dict[str, EchoBackend]) -> Gateway:
    return build(CONFIG, backends)


def asks(model: str = "one", **options: Any) -> Call:
    options.setdefault("cache", CacheOptions(CacheMode.BYPASS))
    return Call(Request(model=model, prompt="a b", **options), "r1")


def test_models_are_listed_by_id_with_their_routes(gateway: Gateway) -> None:
    chat, one, two = gateway.models()
    assert (chat.id, chat.type, chat.default, chat.fallback) == ("chat", "route", True, ("two",))
    assert [(v.name, v.model, v.share) for v in chat.variants] == [("a", "one", 0.9), ("b", "two", 0.1)]
    assert (one.id, one.type, one.max_concurrency, one.max_queue, one.default) == ("one", "local", 1, 1, False)
    assert (two.type, two.status.version) == ("remote", "echo-1")


def test_ready_is_the_default_models_readiest_variant(gateway: Gateway, backends: dict[str, EchoBackend]) -> None:
    assert gateway.ready()
    backends["one"].state = ModelState.LOADING
    assert gateway.ready()
    backends["two"].state = ModelState.FAILED
    assert not gateway.ready()
    assert gateway.model("").status.state is ModelState.LOADING


def test_a_route_is_ready_by_its_fallback(build: Callable[..., Gateway]) -> None:
    lost, spare = EchoBackend("one", state=ModelState.FAILED), EchoBackend("two")
    route = {"id": "chat", "variants": [{"name": "a", "model": "one"}], "fallback": ["two"]}
    gateway = build({**CONFIG, "routes": [route]}, {"one": lost, "two": spare})
    assert gateway.ready()
    assert "fallback `two`" in gateway.model("chat").status.detail
    spare.state = ModelState.COLD
    assert not gateway.ready()
    assert gateway.model("chat").status.state is ModelState.FAILED


def test_a_plan_can_be_read_without_being_run(gateway: Gateway, backends: dict[str, EchoBackend]) -> None:
    request = Request(prompt="a", sampling=Sampling(temperature=0.5), routing=RoutingOptions(variant="a"))
    backends["two"].state = ModelState.COLD
    plan = gateway.explain(Call(request, "r1"))
    assert plan.requested == "chat"
    assert [(a.deployment, a.variant, a.fallback, a.state) for a in plan.attempts] == [
        ("one", "a", False, ModelState.WARM),
        ("two", "", True, ModelState.COLD),
    ]
    assert plan.attempts[0].cache == "cache: not used, sampling at temperature 0.5 is not deterministic"
    assert "pinned to `a` by the request" in plan.reasons
    assert not backends["one"].calls


async def test_the_plan_that_is_explained_is_the_one_that_is_run(gateway: Gateway, take: Callable[..., Any]) -> None:
    for user in ("ada", "bob", "eve"):
        call = asks("chat", routing=RoutingOptions(user=user))
        plan = gateway.explain(call)
        route = (await take(gateway.generate, call))[0].route
        assert route.deployment == plan.attempts[0].deployment
        assert (route.hash_point, route.probability) == (plan.hash_point, plan.probability)
        assert route.reasons[: len(plan.reasons)] == plan.reasons


async def test_tokens_are_counted_by_the_model_that_would_answer(gateway: Gateway) -> None:
    counted = await gateway.count_tokens(asks("chat", routing=RoutingOptions(variant="b")))
    assert (counted.prompt_tokens, counted.model, counted.version) == (2, "two", "echo-1")


async def test_a_full_model_refuses_and_the_others_serve(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    gate = asyncio.Event()
    backends["one"].script = Script(gate=gate)
    tasks = [asyncio.create_task(take(gateway.generate, asks())) for _ in range(2)]
    await until(lambda: gateway.model("one").queued)
    assert (gateway.model("one").in_flight, gateway.model("one").queued) == (1, 1)
    with pytest.raises(Overloaded, match="`one`: 1 waiting, limit 1"):
        await take(gateway.generate, asks())
    assert (await take(gateway.generate, asks("two")))[0].route.deployment == "two"
    gate.set()
    await asyncio.gather(*tasks)
    assert (gateway.model("one").in_flight, gateway.model("one").queued) == (0, 0)


async def test_a_call_whose_deadline_passes_in_the_queue_never_reaches_the_model(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    gate = asyncio.Event()
    backends["one"].script = Script(gate=gate)
    holding = asyncio.create_task(take(gateway.generate, asks()))
    await until(lambda: backends["one"].open)
    with pytest.raises(DeadlineExceeded, match="in the queue"):
        await take(gateway.generate, Call(asks().request, "r2", deadline=time.monotonic() + 0.05))
    gate.set()
    await holding
    assert len(backends["one"].calls) == 1


async def test_a_hit_takes_no_permit(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    cached = Request(model="one", prompt="a b", sampling=Sampling(temperature=0))
    await take(gateway.generate, Call(cached, "r1"))
    await gateway._answers.flush()
    backends["one"].script = Script(gate=(gate := asyncio.Event()))
    holding = [asyncio.create_task(take(gateway.generate, asks())) for _ in range(2)]
    await until(lambda: gateway.model("one").queued)
    events = await take(gateway.generate, Call(cached, "r2"))
    assert events[0].route.cache is CacheResult.HIT
    assert events[0].route.attempts[0].deployment == "one"
    assert events[-1].timing.queue_s == 0
    gate.set()
    await asyncio.gather(*holding)


async def test_cache_statistics_and_invalidation(gateway: Gateway, take: Callable[..., Any]) -> None:
    request = Request(model="one", prompt="a b", sampling=Sampling(temperature=0))
    for _ in range(2):
        await take(gateway.generate, Call(request, "r1"))
        await gateway._answers.flush()
    stats = await gateway.cache_stats()
    assert [(m.model, m.hits, m.misses, m.stores) for m in stats.models] == [("one", 1, 1, 1), ("two", 0, 0, 0)]
    assert (stats.tiers[0].entries, stats.tiers[0].hits) == (1, 1)
    assert [m.model for m in (await gateway.cache_stats("one")).models] == ["one"]
    assert await gateway.invalidate_cache("two") == 0
    assert await gateway.invalidate_cache("one") == 1
    with pytest.raises(UnknownModel):
        await gateway.invalidate_cache("nowhere")
    with pytest.raises(UnknownModel):
        await gateway.cache_stats("nowhere")


async def test_loading_with_and_without_waiting(gateway: Gateway, backends: dict[str, EchoBackend]) -> None:
    backends["one"].state = ModelState.COLD
    assert (await gateway.load("one", wait=True)).status.state is ModelState.WARM
    backends["one"].load_error = ModelFailed("no weights")
    with pytest.raises(ModelFailed, match="no weights"):
        await gateway.load("one", wait=True)
    assert (await gateway.load("one", wait=False)).status.state is ModelState.FAILED
    with pytest.raises(UnknownModel):
        await gateway.load("nowhere", wait=True)
    with pytest.raises(InvalidArgument, match="is a route"):
        await gateway.load("chat", wait=True)


async def test_only_local_models_are_unloaded(gateway: Gateway, backends: dict[str, EchoBackend]) -> None:
    assert (await gateway.unload("one", 5.0)).status.state is ModelState.COLD
    assert backends["one"].unloads == [5.0]
    with pytest.raises(InvalidArgument, match="`two` is remote"):
        await gateway.unload("two", 5.0)


async def test_a_draining_gateway_finishes_what_it_has_and_takes_no_more(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    gate = asyncio.Event()
    backends["one"].script = Script(gate=gate)
    running = asyncio.create_task(take(gateway.generate, asks()))
    await until(lambda: backends["one"].open)
    assert not await gateway.drain(0.01)
    assert not gateway.ready()
    with pytest.raises(Draining) as refused:
        await take(gateway.generate, asks("two"))
    assert refused.value.retry_after_s
    draining = asyncio.create_task(gateway.drain(60))
    gate.set()
    assert await draining
    assert "".join(e.text for e in await running if isinstance(e, Token)) == "a b"


async def test_what_outlasts_the_drain_ends_as_draining(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """Both while the model is waited for and while the caller holds an event."""
    for backend in backends.values():
        backend.script = Script(texts=("a", "b", "c"), gate=asyncio.Event(), gate_after=1)
    holding, waits = gateway.generate(asks("two")), asyncio.create_task(take(gateway.generate, asks("one")))
    await anext(holding)
    await until(lambda: backends["one"].open)
    assert not await gateway.drain(0)
    gateway.cut()
    with pytest.raises(Draining):
        await waits
    assert isinstance(await anext(holding), Token), "what is there without waiting"
    with pytest.raises(Draining):
        await anext(holding)
    assert all(backend.open == 0 for backend in backends.values())
    assert gateway.model("one").in_flight == 0


async def test_closing_stops_every_backend(gateway: Gateway, backends: dict[str, EchoBackend]) -> None:
    await gateway.start()
    assert all(backend.started for backend in backends.values())
    await gateway.close()
    assert all(backend.stopped for backend in backends.values())


async def test_the_registry_shows_every_models_state(
    gateway: Gateway, backends: dict[str, EchoBackend], registry: CollectorRegistry
) -> None:
    backends["one"].state = ModelState.LOADING
    state = "polyroute_model_state"
    assert registry.get_sample_value(state, {"model": "one", "state": "loading"}) == 1
    assert registry.get_sample_value(state, {"model": "one", "state": "warm"}) == 0
    assert registry.get_sample_value(state, {"model": "chat", "state": "warm"}) is None
    for metric, value in (("permits_in_use", 0), ("permits_limit", 1), ("queued", 0), ("queue_limit", 1)):
        assert registry.get_sample_value(f"polyroute_{metric}", {"deployment": "one"}) == value


async def test_the_registry_counts_a_local_models_replicas_and_loads(
    gateway: Gateway, backends: dict[str, EchoBackend], registry: CollectorRegistry
) -> None:
    backends["one"].state = ModelState.DRAINING
    assert registry.get_sample_value("polyroute_replicas", {"model": "one", "state": "draining"}) == 1
    gateway._metrics.model_loaded("one", "ok", 3.0)
    gateway._metrics.model_loaded("one", "MODEL_FAILED", 1.0)
    gateway._metrics.model_evicted("one")
    gateway._metrics.watch_memory(lambda: [MemoryView("cpu", 5, 9), MemoryView("cuda:0", 7, None)])
    for name, labels, value in (
        ("polyroute_model_loads_total", {"model": "one", "outcome": "MODEL_FAILED"}, 1),
        ("polyroute_model_load_seconds_sum", {"model": "one"}, 3),
        ("polyroute_model_evictions_total", {"model": "one"}, 1),
        ("polyroute_memory_held_bytes", {"device": "cuda:0"}, 7),
        ("polyroute_memory_budget_bytes", {"device": "cpu"}, 9),
        ("polyroute_memory_budget_bytes", {"device": "cuda:0"}, None),
    ):
        assert registry.get_sample_value(name, labels) == value, name


async def test_the_registry_shows_the_replicas_there_are_and_no_others(
    build: Callable[..., Gateway], registry: CollectorRegistry, take: Callable[..., Any]
) -> None:
    ill = EchoBackend("m", replica="ill", script=Script(error=PeerFailed("bad")))
    well = EchoBackend("m", replica="well")
    pool = Pool(DeploymentConfig(id="m", breaker={"failures": 1}, balance="round_robin"), [ill, well])
    gateway = build({"models": [{"id": "m", "type": "remote", "base_url": "http://m:1"}]}, {"m": pool})
    for i in range(2):
        await take(gateway.generate, Call(Request(prompt=f"{i}"), f"r{i}"))

    def value(name: str, replica: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"polyroute_replica_{name}", {"deployment": "m", "replica": replica, **labels})

    assert (value("ejections_total", "ill"), value("ejections_total", "well")) == (1, 0)
    assert (value("breaker", "ill", state="open"), value("breaker", "ill", state="closed")) == (1, 0)
    assert (value("weight", "well"), value("in_flight", "well")) == (1, 0)
    await pool.remove(ill, 0)
    assert value("ejections_total", "ill") is None
    assert value("breaker", "ill", state="open") is None
    assert value("breaker", "well", state="closed") == 1


async def test_every_refusal_is_logged_and_counted(
    gateway: Gateway, take: Callable[..., Any], registry: CollectorRegistry
) -> None:
    with captured_lines() as logs, pytest.raises(UnknownModel):
        await take(gateway.generate, asks("nowhere"))
    assert [(line["event"], line["outcome"]) for line in logs] == [("call.finished", "UNKNOWN_MODEL")]
    labels = {"model": "_other", "cache": "unspecified", "outcome": "UNKNOWN_MODEL"}
    assert total(registry, "polyroute_requests_total", **labels) == 1


async def test_what_cannot_name_a_model_is_not_logged(gateway: Gateway) -> None:
    with captured_lines() as logs:
        for model in ("tell me a story", "x" * 1000, "fine"):
            gateway.refused(Call(Request(model), "r"), InvalidArgument("model", "is none"))
    assert [line["requested"] for line in logs] == ["", "", "fine"]


async def test_a_model_without_a_healthy_replica_is_passed_over(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    backends["one"].state = ModelState.FAILED
    call = asks("chat", routing=RoutingOptions(variant="a"))
    route = (await take(gateway.generate, call))[0].route
    assert [attempt.deployment for attempt in route.attempts] == ["two"]
    assert (route.deployment, route.variant) == ("two", "a")
    why = "`one` has no healthy replica, so `two` is tried first"
    assert why in route.reasons
    plan = gateway.explain(call)
    assert [(a.deployment, a.state, a.fallback) for a in plan.attempts] == [
        ("two", ModelState.WARM, True),
        ("one", ModelState.FAILED, False),
    ]
    assert why in plan.reasons
    backends["two"].state = ModelState.FAILED
    assert gateway.explain(call).attempts[0].deployment == "one"


async def test_an_alias_is_another_name(build: Callable[..., Gateway], take: Callable[..., Any]) -> None:
    routes = [{"id": "fast", "model": "one", "sticky_by": ["header:x-tenant"]}]
    gateway = build({**CONFIG, "default_model": "fast", "routes": routes}, {n: EchoBackend(n) for n in ("one", "two")})
    route = (await take(gateway.generate, asks("")))[0].route
    assert (route.requested, route.deployment, route.variant, route.hash_point) == ("fast", "one", "", None)
    assert route.reasons[:2] == ("no model is named, so the default answers", "`fast` is another name of `one`")
    assert [(v.name, v.model, v.share) for v in gateway.model("fast").variants] == [("", "one", 1.0)]
    assert gateway.sticky_headers == {"x-tenant"}


def test_a_plan_says_which_replica_would_answer(build: Callable[..., Gateway]) -> None:
    pool = Pool(DeploymentConfig(id="one"), [EchoBackend("one", replica=name) for name in ("r0", "r1")])
    gateway = build(
        {**CONFIG, "routes": [], "default_model": "one"}, {"one": pool, "two": Pool(DeploymentConfig(id="two"))}
    )
    [attempt] = gateway.explain(asks("one")).attempts
    assert attempt.replica in ("r0", "r1")
    assert attempt.replica_reason.startswith(f"`{attempt.replica}` has 0 in flight")
    [attempt] = gateway.explain(asks("two")).attempts
    assert (attempt.replica, attempt.replica_reason) == ("", "`two`: has no replica yet")


async def test_answers_in_the_making_that_equal_calls_share_are_counted(
    build: Callable[..., Gateway], registry: CollectorRegistry, take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    gate = asyncio.Event()
    echo = EchoBackend("two", script=Script(gate=gate))
    models = [{"id": "two", "type": "remote", "base_url": "http://two:1"}]
    gateway = build({"models": models, "cache": {"mode": "deterministic"}}, {"two": echo})
    request = Request("two", "a b", sampling=Sampling(temperature=0))
    calls = [asyncio.create_task(take(gateway.generate, Call(request, f"r{i}"))) for i in range(2)]
    await until(lambda: echo.calls)
    assert total(registry, "polyroute_cache_runs", model="two") == 1
    gate.set()
    await asyncio.gather(*calls)
    await until(lambda: total(registry, "polyroute_cache_runs", model="two") == 0)
