"""What is in memory is given past the layers, and leaves all that a call leaves which went through them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend
from polyroute.core.call import Call, Worked
from polyroute.core.event import CacheResult, Whole
from polyroute.core.request import CacheMode, CacheOptions, Request, RoutingOptions, Sampling
from polyroute.routing.gateway import Gateway
from polyroute.routing.streams import generator
from tests.lines import captured_lines

CONFIG = {
    "default_model": "one",
    "models": [
        {"id": "one", "type": "local"},
        {"id": "two", "type": "remote", "base_url": "http://two:1"},
        {"id": "off", "type": "local", "cache": {"mode": "off"}},
    ],
    "routes": [
        {"id": "alias", "model": "one"},
        {"id": "split", "variants": [{"name": "a", "model": "one"}, {"name": "b", "model": "two"}]},
        {"id": "safe", "model": "one", "fallback": ["two"]},
        {"id": "seen", "model": "one", "shadow": [{"model": "two", "sample": 1.0}]},
    ],
}
PASSING = ("total_s", "first_token_s", "router_overhead_s", "trace_id", "request_id")


@pytest.fixture
def backends() -> dict[str, EchoBackend]:
    return {name: EchoBackend(name) for name in ("one", "two", "off")}


@pytest.fixture
def gateway(build: Callable[..., Gateway], backends: dict[str, EchoBackend]) -> Gateway:
    return build(CONFIG, backends)


def asks(model: str = "one", **options: Any) -> Call:
    options.setdefault("sampling", Sampling(temperature=0))
    request = Request(model=model, prompt="a b", **options)
    return Call(request, "r1", worked=Worked(request))


async def stored(gateway: Gateway, take: Callable[..., Any], *models: str) -> None:
    """Has the models answer once, so that it is in memory; plans that are made once are made as well."""
    for model in models:
        await take(gateway.generate, asks(model))


def counted(registry: CollectorRegistry) -> dict[Any, float]:
    """Every count, except how long things took."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith(("_sum", "_bucket", "_created"))
    }


def added(before: dict[Any, float], after: dict[Any, float]) -> dict[Any, float]:
    return {key: value - before.get(key, 0.0) for key, value in after.items() if value != before.get(key, 0.0)}


@pytest.mark.parametrize("model", ["one", "alias", ""])
async def test_it_is_what_the_layers_give_and_leaves_what_they_leave(
    gateway: Gateway, take: Callable[..., Any], registry: CollectorRegistry, model: str
) -> None:
    await stored(gateway, take, "one", model)
    start = counted(registry)
    with captured_lines() as through:
        async with aclosing(generator(gateway.generate(asks(model)))) as events:
            (expected,) = [event async for event in events]
    between = counted(registry)
    with captured_lines() as past:
        given = gateway.at_hand(asks(model))
    end = counted(registry)

    assert isinstance(expected, Whole)
    assert given is not None
    assert len(given.started.route.trace_id) == 32

    def settled(whole: Whole) -> Whole:
        route = whole.started.route
        attempts = tuple(replace(attempt, duration_s=0.0) for attempt in route.attempts)
        route = replace(route, trace_id="", attempts=attempts, cache_age_s=0.0)
        finished = replace(whole.finished, timing=type(whole.finished.timing)())
        return Whole(replace(whole.started, route=route), whole.tokens, finished)

    assert settled(given) == settled(expected)
    assert given.finished.timing.total_s >= given.finished.timing.first_token_s > 0
    (one,), (other,) = through, past
    assert {**one, **dict.fromkeys(PASSING)} == {**other, **dict.fromkeys(PASSING)}
    assert added(between, end) == added(start, between) != {}


@pytest.mark.parametrize(
    "call",
    [
        asks("two"),
        asks("split"),
        asks("safe"),
        asks("seen"),
        asks("off"),
        asks("nowhere"),
        asks(sampling=Sampling(temperature=1)),
        asks(cache=CacheOptions(CacheMode.BYPASS)),
        asks(cache=CacheOptions(CacheMode.REFRESH)),
        asks(cache=CacheOptions(original_pace=True)),
        asks(cache=CacheOptions(max_age_s=0)),
        asks(routing=RoutingOptions(variant="a")),
        replace(asks(), deadline=time.monotonic() - 1),
    ],
)
async def test_nothing_is_at_hand_and_nothing_is_told(
    gateway: Gateway, take: Callable[..., Any], registry: CollectorRegistry, call: Call
) -> None:
    await stored(gateway, take, "one", "alias", "split", "safe", "seen", "off")
    await gateway.invalidate_cache("two")
    before = counted(registry)
    with captured_lines() as logs:
        assert gateway.at_hand(call) is None
    assert (logs, counted(registry)) == ([], before)


async def test_nothing_is_at_hand_of_a_server_that_leaves(gateway: Gateway, take: Callable[..., Any]) -> None:
    await stored(gateway, take, "one")
    assert gateway.at_hand(asks()) is not None
    await gateway.drain(1)
    assert gateway.at_hand(asks()) is None


async def test_what_was_worked_out_holds_until_the_answer_is_invalidated(
    gateway: Gateway, take: Callable[..., Any]
) -> None:
    await stored(gateway, take, "one")
    call = asks()
    keys = {given.started.route.cache_key for _ in range(3) if (given := gateway.at_hand(call)) is not None}
    assert len(keys) == 1
    await gateway.invalidate_cache("one")
    assert gateway.at_hand(call) is None
    await take(gateway.generate, call)
    again = gateway.at_hand(call)
    assert again is not None
    assert again.started.route.cache is CacheResult.HIT


async def test_what_was_worked_out_of_one_request_is_not_anothers(gateway: Gateway, take: Callable[..., Any]) -> None:
    await stored(gateway, take, "one")
    call = asks()
    assert gateway.at_hand(call) is not None
    other = replace(call, request=replace(call.request, prompt="another"))
    assert gateway.at_hand(other) is None


async def test_another_version_has_another_answer(
    gateway: Gateway, take: Callable[..., Any], backends: dict[str, EchoBackend]
) -> None:
    await stored(gateway, take, "one")
    call = asks()
    assert gateway.at_hand(call) is not None
    backends["one"].version = "echo-2"
    assert gateway.at_hand(call) is None
