"""Attempts are made in turn until one begins to answer, and never after that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.pool import Pool
from polyroute.core.call import Call
from polyroute.core.config import DeploymentConfig
from polyroute.core.errors import (
    DeadlineExceeded,
    Draining,
    InvalidArgument,
    ModelFailed,
    ModelLoading,
    Overloaded,
    PeerFailed,
    PolyrouteError,
    UnknownModel,
    WorkerDied,
)
from polyroute.core.event import Finished, Started, Token
from polyroute.core.request import CacheMode, CacheOptions, Request, RoutingOptions
from polyroute.core.trace import SAMPLED, Span, Trace
from polyroute.routing.gateway import Gateway
from tests.unit.backends.local.loading import site

CONFIG = {
    "default_model": "chat",
    "models": [
        {"id": "one", "type": "local", "first_token_timeout": 60},
        {"id": "two", "type": "remote", "base_url": "http://two:1"},
        {"id": "three", "type": "remote", "base_url": "http://three:1"},
    ],
    "routes": [{"id": "chat", "variants": [{"name": "v1", "model": "one"}], "fallback": ["two", "three"]}],
}
ASKS = Request(model="chat", prompt="a b", cache=CacheOptions(CacheMode.BYPASS), routing=RoutingOptions(user="ada"))


@pytest.fixture
def backends() -> dict[str, EchoBackend]:
    return {name: EchoBackend(name, replica=f"{name}-0") for name in ("one", "two", "three")}


@pytest.fixture
def gateway(build: Callable[..., Gateway], backends: dict[str, EchoBackend]) -> Gateway:
    return build(CONFIG, backends)


def fails(backend: EchoBackend, error: Exception, after: int = 0) -> None:
    backend.script = Script(error=error, error_after=after)


async def test_the_first_that_answers_is_the_last_that_is_tried(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    events = await take(gateway.generate, Call(ASKS, "r1"))
    route = events[0].route
    assert (route.requested, route.model, route.deployment, route.variant) == ("chat", "one", "one", "v1")
    assert (route.replica, route.version, route.sticky_by, route.probability) == ("one-0", "echo-1", "user", 1.0)
    assert 0 <= route.hash_point < 1
    assert [(a.deployment, a.replica, a.reason) for a in route.attempts] == [("one", "one-0", "")]
    assert "".join(e.text for e in events if isinstance(e, Token)) == "a b"
    assert isinstance(events[-1], Finished)
    assert not backends["two"].calls


async def test_failed_attempts_are_told_with_the_answer(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any], registry: CollectorRegistry
) -> None:
    fails(backends["one"], WorkerDied("`one`: gone"))
    fails(backends["two"], Overloaded("`two`: full"))
    route = (await take(gateway.generate, Call(ASKS, "r1")))[0].route
    assert (route.deployment, route.model, route.variant) == ("three", "three", "v1")
    assert [(a.deployment, a.variant, a.reason, a.message) for a in route.attempts] == [
        ("one", "v1", "WORKER_DIED", "`one`: gone"),
        ("two", "", "OVERLOADED", "`two`: full"),
        ("three", "", "", ""),
    ]
    assert "`one` failed: WORKER_DIED" in route.reasons
    assert "`three` answered as fallback" in route.reasons
    assert registry.get_sample_value("polyroute_attempts_total", {"deployment": "one", "outcome": "WORKER_DIED"}) == 1


async def test_attempts_at_replicas_stand_among_the_steps(
    build: Callable[..., Gateway],
    backends: dict[str, EchoBackend],
    take: Callable[..., Any],
    registry: CollectorRegistry,
) -> None:
    """A pool tells its own; the router says which deployment and variant they were of."""
    ill = [EchoBackend("one", replica=f"one-{i}", script=Script(error=Draining("gone"))) for i in range(2)]
    twos = [EchoBackend("two", replica="two-0", script=Script(error=PeerFailed("bad"))), backends["two"]]
    twos[1].replica = "two-1"
    pools = {
        "one": Pool(DeploymentConfig(id="one"), ill),
        "two": Pool(DeploymentConfig(id="two", balance="round_robin"), twos),
        "three": backends["three"],
    }
    gateway = build(CONFIG, pools)
    routes = [(await take(gateway.generate, Call(ASKS, f"r{i}")))[0].route for i in range(2)]
    for route in routes:
        assert {(a.deployment, a.replica, a.variant, a.reason) for a in route.attempts[:2]} == {
            ("one", "one-0", "v1", "DRAINING"),
            ("one", "one-1", "v1", "DRAINING"),
        }
    after = sorted([[(a.deployment, a.replica, a.reason) for a in route.attempts[2:]] for route in routes], key=len)
    assert after == [[("two", "two-1", "")], [("two", "two-0", "PEER_FAILED"), ("two", "two-1", "")]]
    assert "`one-0` failed: DRAINING" in routes[0].reasons
    assert sum(route.reasons.count("`two-0` failed: PEER_FAILED") for route in routes) == 1
    failures = "polyroute_attempts_total"
    assert registry.get_sample_value(failures, {"deployment": "one", "outcome": "DRAINING"}) == 4
    assert registry.get_sample_value(failures, {"deployment": "two", "outcome": "PEER_FAILED"}) == 1
    twos[1].script = Script(error=PeerFailed("worse"))
    fails(backends["three"], Overloaded("full"))
    with pytest.raises(Overloaded) as failed:
        await take(gateway.generate, Call(ASKS, "r3"))
    assert [a.deployment for a in failed.value.attempts] == ["one", "one", "two", "two", "two", "three"]
    assert failed.value.message.startswith("full (tried before: `one-")


async def test_a_model_that_failed_to_load_is_asked_again_once_it_may_be(
    build: Callable[..., Gateway],
    backends: dict[str, EchoBackend],
    take: Callable[..., Any],
    until: Callable[..., Any],
) -> None:
    """Nobody else would try to load it, and a fallback that is well must not hide it for ever."""
    one = site("one", fails=ModelFailed("broken"))
    gateway = build(CONFIG, {**backends, "one": one.pool})

    async def tried() -> list[tuple[str, str]]:
        route = (await take(gateway.generate, Call(ASKS, "r")))[0].route
        return [(attempt.deployment, attempt.reason) for attempt in route.attempts]

    first = asyncio.create_task(tried())
    (await one.made_one()).gate.set()
    assert await first == [("one", "MODEL_FAILED"), ("two", "")]
    await until(lambda: not one.pool.status().replicas)
    assert await tried() == [("two", "")]  # it is too early for another load
    one.clock[0] += 5.0
    again = asyncio.create_task(tried())
    loading = await one.made_one(2)
    assert await tried() == [("two", "")]  # one call waits for the outcome, not all
    loading.load_error = None
    loading.gate.set()
    assert await again == [("one", "")]
    await one.pool.stop()


async def test_after_the_answer_has_begun_nothing_else_is_tried(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    fails(backends["one"], WorkerDied("gone"), after=1)
    with pytest.raises(WorkerDied):
        await take(gateway.generate, Call(ASKS, "r1"))
    assert not backends["two"].calls


async def test_an_error_that_another_would_repeat_ends_the_call(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    fails(backends["one"], InvalidArgument("prompt", "too long"))
    with pytest.raises(InvalidArgument, match=r"^prompt: too long$") as refused:
        await take(gateway.generate, Call(ASKS, "r1"))
    assert refused.value.field == "prompt"
    assert not backends["two"].calls


async def test_the_last_error_keeps_its_kind_and_tells_what_was_tried(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    fails(backends["one"], WorkerDied("gone"))
    fails(backends["two"], PeerFailed("bad"))
    fails(backends["three"], Overloaded("full", retry_after_s=7))
    with pytest.raises(Overloaded) as failed:
        await take(gateway.generate, Call(ASKS, "r1"))
    assert failed.value.message == "full (tried before: `one` WORKER_DIED; `two` PEER_FAILED)"
    assert str(failed.value) == failed.value.message
    assert failed.value.retry_after_s == 7
    assert [a.deployment for a in failed.value.attempts] == ["one", "two", "three"]


async def test_an_error_that_a_backend_keeps_raising_does_not_grow(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    shared = PeerFailed("bad")
    for backend in backends.values():
        fails(backend, shared)
    messages = set()
    for _ in range(3):
        with pytest.raises(PeerFailed) as failed:
            await take(gateway.generate, Call(ASKS, "r1"))
        messages.add(failed.value.message)
    assert len(messages) == 1
    assert (shared.message, shared.attempts) == ("bad", ())


async def test_a_request_may_refuse_fallbacks(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    fails(backends["one"], WorkerDied("gone"))
    request = Request(model="chat", prompt="a", routing=RoutingOptions(no_fallback=True))
    with pytest.raises(WorkerDied, match=r"^gone$"):
        await take(gateway.generate, Call(request, "r1"))
    assert not backends["two"].calls


async def test_a_deadline_that_has_passed_is_not_tried(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    with pytest.raises(DeadlineExceeded):
        await take(gateway.generate, Call(ASKS, "r1", deadline=time.monotonic() - 1))
    assert not backends["one"].calls


async def test_a_deadline_that_passes_during_an_attempt_is_not_followed_by_another(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    backends["one"].script = Script(gate=asyncio.Event())
    with pytest.raises(DeadlineExceeded):
        await take(gateway.generate, Call(ASKS, "r1", deadline=time.monotonic() + 0.05))
    assert backends["one"].open == 0
    assert not backends["two"].calls


async def test_an_unknown_model_is_answered_with_near_names(gateway: Gateway, take: Callable[..., Any]) -> None:
    with pytest.raises(UnknownModel, match="did you mean `three`") as unknown:
        await take(gateway.generate, Call(Request(model="thre", prompt="a"), "r1"))
    assert unknown.value.near == ("three",)


async def test_leaving_closes_everything_below(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    events = await take(gateway.generate, Call(ASKS, "r1"), most=1)
    assert isinstance(events[0], Started)
    assert (backends["one"].open, backends["one"].closed_early) == (0, 1)
    assert gateway.model("one").in_flight == 0


async def test_time_lost_in_failed_attempts_is_not_the_routers(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    async def slow(_: int) -> None:
        await asyncio.sleep(0.05)

    backends["one"].script = Script(pause=slow, error=WorkerDied("gone"))
    timing = (await take(gateway.generate, Call(ASKS, "r1")))[-1].timing
    assert timing.backend_s >= 0.05
    assert timing.total_s >= timing.backend_s
    assert timing.router_overhead_s <= timing.total_s - 0.05


def test_every_error_can_be_told_again_with_its_attempts() -> None:
    error = InvalidArgument("stop[3]", "empty").after((), "stop[3]: empty (tried before: `a`)")
    assert isinstance(error, PolyrouteError)
    assert (error.field, error.problem, str(error)) == ("stop[3]", "empty", "stop[3]: empty (tried before: `a`)")


async def test_a_fallback_answers_while_a_model_is_being_loaded(
    build: Callable[..., Gateway], backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    route = {**CONFIG["routes"][0], "when_cold": "fallback"}  # type: ignore[dict-item]
    gateway = build({**CONFIG, "routes": [route]}, backends)
    fails(backends["one"], ModelLoading("`one` is being loaded"))
    told = (await take(gateway.generate, Call(ASKS, "r1")))[0].route
    assert told.deployment == "two"
    assert "`one` is not loaded yet, and is being loaded meanwhile" in told.reasons
    assert [call.wait_for_load for name in ("one", "two") for call in backends[name].calls] == [False, False]
    fails(backends["two"], ModelLoading("`two` is being loaded"))
    await take(gateway.generate, Call(ASKS, "r2"))
    assert backends["three"].calls[0].wait_for_load


async def test_a_step_that_came_to_no_replica_is_a_span_where_the_call_is_sampled(
    gateway: Gateway, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    spans: list[Span] = []
    trace = Trace("a" * 32, "", SAMPLED)
    root = Span("call", "server", trace, spans.append, {})
    fails(backends["one"], Overloaded("`one`: 64 waiting, limit 64"))
    await take(gateway.generate, Call(ASKS, "r1", trace=trace.under(root)))
    span, call = (each for each in spans if each.name != "queue")  # a wait that took long is one, too
    assert call is root
    assert (span.name, span.parent_id, span.error) == ("attempt one", root.span_id, "`one`: 64 waiting, limit 64")
    assert span.attributes == {"polyroute.deployment": "one", "error.type": "OVERLOADED"}
