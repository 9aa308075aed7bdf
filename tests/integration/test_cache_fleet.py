"""Of machines that share a Redis, one runs for equal calls on all of them; one that is gone holds nobody back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.config import CacheConfig
from polyroute.core.errors import WorkerDied
from polyroute.core.event import CacheResult, Event, Route, Started, Token, parts_of
from polyroute.core.request import Request, Sampling
from polyroute.routing.cache import fleet, leases
from polyroute.routing.cache.leases import Leases
from polyroute.routing.cache.redis_client import connect
from polyroute.routing.cache.shelf import Shelf
from polyroute.routing.layers.cached import Cached
from polyroute.routing.metrics import Metrics
from polyroute.routing.streams import generator
from polyroute.server.cache_tiers import tiers_of
from polyroute.server.settings import Flags, settings
from tests.integration.redis_server import RedisServer, redis_server

WAIT_S = 60.0
ASKED = Call(Request(prompt="a b c", sampling=Sampling(temperature=0)), "r")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def machine(redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The cache of one machine around its backend, with limits that no slow machine meets."""
    monkeypatch.setattr(leases, "_LIMIT_S", WAIT_S)

    @asynccontextmanager
    async def _machine(name: str, backend: EchoBackend) -> AsyncIterator[Cached]:
        environ = {"POLYROUTE_CACHE_DIR": str(tmp_path / name), "POLYROUTE_REDIS_URL": redis.url}
        answers = tiers_of(settings(Flags(demo=True), environ))
        for tier in answers.below:
            tier.tier.get_s = tier.tier.put_s = WAIT_S
        await answers.start()
        # Until then it has a generation of its own, and so leases of its own.
        await until(lambda: answers._sharing is not None and answers._sharing.connected)
        shelf = Shelf("m", True, "f", CacheConfig(coalesce="fleet"), backend.facts)
        cached = Cached(backend.stream, shelf, answers, Metrics(CollectorRegistry(), {"m"}))
        try:
            yield cached
        finally:
            await cached.close()
            await answers.close()

    return _machine


async def take(cached: Cached) -> list[Event]:
    async with aclosing(generator(cached(ASKED))) as events:
        return [part async for event in events for part in parts_of(event)]


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def route(events: list[Event]) -> Route:
    assert isinstance(events[0], Started)
    return events[0].route


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in Redis
            await asyncio.sleep(0.005)


async def test_equal_calls_on_two_machines_are_one_run(machine: Callable[..., Any]) -> None:
    here, there, gate = EchoBackend("m"), EchoBackend("m"), asyncio.Event()
    here.script = Script(gate=gate, gate_after=1)
    async with machine("a", here) as first, machine("b", there) as second:
        calls = [asyncio.create_task(take(first)) for _ in range(3)]
        await until(lambda: here.open)
        others = [asyncio.create_task(take(second)) for _ in range(3)]
        await until(lambda: second.ledger.flights.following == 3)
        gate.set()
        answers = await asyncio.gather(*calls, *others)
    assert [text(answer) for answer in answers] == ["a b c"] * 6
    assert [route(answer).cache for answer in answers[3:]] == [CacheResult.HIT] * 3
    assert (len(here.calls), len(there.calls)) == (1, 0)


async def test_where_one_machines_run_fails_another_runs(machine: Callable[..., Any]) -> None:
    here, there, gate = EchoBackend("m"), EchoBackend("m"), asyncio.Event()
    here.script = Script(gate=gate, error=WorkerDied("gone"))
    async with machine("a", here) as first, machine("b", there) as second:
        failing = asyncio.create_task(take(first))
        await until(lambda: here.open)
        waiting = asyncio.create_task(take(second))
        await until(lambda: second.ledger.flights.following == 1)
        assert not there.calls
        gate.set()
        with pytest.raises(WorkerDied):
            await failing
        answer = await waiting
    assert (text(answer), route(answer).cache) == ("a b c", CacheResult.MISS)


async def test_a_machine_that_dies_holds_nobody_back_for_long(
    machine: Callable[..., Any], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease ends by itself, for it renews it no more."""
    monkeypatch.setattr(fleet, "LEASE_S", 0.5)
    there = EchoBackend("m")
    async with machine("b", there) as second:
        key = second._answers.key("m", second._shelf.key(ASKED, "echo-1"))
        client = connect(redis.url)
        dead = await Leases(client).acquire(key, 0.5)
        assert dead is not None
        assert dead.held
        assert text(await take(second)) == "a b c"
        await client.aclose()
    assert len(there.calls) == 1


async def test_a_long_run_keeps_its_lease(
    machine: Callable[..., Any], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "LEASE_S", 3.0)
    here, there, gate = EchoBackend("m"), EchoBackend("m"), asyncio.Event()
    here.script = Script(gate=gate, gate_after=1)
    async with machine("a", here) as first, machine("b", there) as second:
        call = asyncio.create_task(take(first))
        await until(lambda: here.open)
        other = asyncio.create_task(take(second))
        with closing(redis.client()) as client:
            (name,) = client.keys("polyroute:lease:*")
            left = [client.pttl(name)]

            def renewed() -> bool:
                left.append(client.pttl(name))
                return left[-1] > min(left)

            await until(renewed)
        assert not there.calls
        gate.set()
        assert text(await call) == text(await other) == "a b c"
    assert not there.calls


async def test_whoever_leaves_gives_the_turn_back(machine: Callable[..., Any]) -> None:
    here, there = EchoBackend("m"), EchoBackend("m")
    here.script = Script(gate=asyncio.Event(), gate_after=1)
    async with machine("a", here) as first, machine("b", there) as second:
        call = asyncio.create_task(take(first))
        await until(lambda: here.open)
        other = asyncio.create_task(take(second))
        await until(lambda: second.ledger.flights.following == 1)
        call.cancel()
        assert text(await other) == "a b c"
    assert (here.closed_early, len(there.calls)) == (1, 1)


async def test_without_redis_each_machine_runs_for_itself(machine: Callable[..., Any], redis: RedisServer) -> None:
    here, there = EchoBackend("m"), EchoBackend("m")
    async with machine("a", here) as first, machine("b", there) as second:
        redis.kill()
        assert [text(answer) for answer in await asyncio.gather(take(first), take(second))] == ["a b c"] * 2
    assert (len(here.calls), len(there.calls)) == (1, 1)
