"""A stale answer is given while it is renewed, or where the model fails, as far as the model's options let it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.errors import (
    FirstTokenTimeout,
    InvalidArgument,
    NotCached,
    Overloaded,
    PeerFailed,
    PolyrouteError,
    WorkerDied,
)
from polyroute.core.event import Attempt, CacheResult, Event, Finished, FinishReason, Route, Started, Token, parts_of
from polyroute.core.request import CacheMode, CacheOptions, Request, Sampling
from polyroute.routing.cache.runs import MOST_REFRESHES
from polyroute.routing.layers.cached import Cached
from polyroute.routing.streams import generator
from tests.clock import Clock

HOUR = 3600.0
SERVES = {"ttl": HOUR, "stale_while_revalidate": HOUR}
SPARES = {"ttl": HOUR, "stale_if_error": 24 * HOUR}


def asks(prompt: str = "a b c", mode: CacheMode = CacheMode.UNSPECIFIED, max_age_s: float | None = None) -> Call:
    return Call(Request(prompt=prompt, sampling=Sampling(temperature=0), cache=CacheOptions(mode, max_age_s)), "r")


async def take(cached: Cached, call: Call) -> list[Event]:
    async with aclosing(generator(cached(call))) as events:
        return [part async for event in events for part in parts_of(event)]


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def route(events: list[Event]) -> Route:
    assert isinstance(events[0], Started)
    return events[0].route


def refreshes(registry: CollectorRegistry, outcome: str) -> float | None:
    return registry.get_sample_value("polyroute_cache_refreshes_total", {"model": "m", "outcome": outcome})


async def test_a_stale_answer_is_given_at_once_and_renewed_behind_it(
    backend: EchoBackend, layer: Callable[..., Cached], clock: Clock, until: Callable[..., Any]
) -> None:
    cached = layer(backend, **SERVES)
    backend.script = Script(texts=["old"])
    await take(cached, asks())
    clock.now += HOUR + 60
    gate = asyncio.Event()
    backend.script = Script(texts=["new"], gate=gate)
    stale = [await take(cached, asks()) for _ in range(3)]
    assert [text(answer) for answer in stale] == ["old"] * 3
    assert {(route(answer).cache, route(answer).cache_age_s) for answer in stale} == {(CacheResult.HIT, HOUR + 60)}
    assert route(stale[0]).reasons[-1] == "cache: found in memory, stored 3660 s ago, stale and being renewed"
    await until(lambda: backend.open)
    assert len(backend.calls) == 2, "one renewal for all"
    gate.set()
    await until(lambda: not cached.ledger.refreshing)
    fresh = await take(cached, asks())
    assert (text(fresh), route(fresh).cache, route(fresh).cache_age_s) == ("new", CacheResult.HIT, 0)


async def test_a_renewal_goes_on_when_nobody_waits_and_can_be_joined(
    backend: EchoBackend, layer: Callable[..., Cached], clock: Clock, until: Callable[..., Any]
) -> None:
    cached = layer(backend, **SERVES)
    await take(cached, asks())
    clock.now += HOUR + 60
    gate = asyncio.Event()
    backend.script = Script(texts=["new"], gate=gate)
    await take(cached, asks())
    strict = [asyncio.create_task(take(cached, asks(max_age_s=60))) for _ in range(2)]
    await until(lambda: backend.open)
    await asyncio.sleep(0)
    strict[0].cancel()
    await asyncio.wait(strict[:1])
    assert backend.open == 1
    gate.set()
    answer = await strict[1]
    assert (text(answer), route(answer).cache) == ("new", CacheResult.COALESCED)
    assert len(backend.calls) == 2


async def test_a_renewal_that_fails_leaves_what_there_is(
    backend: EchoBackend,
    layer: Callable[..., Cached],
    clock: Clock,
    until: Callable[..., Any],
    registry: CollectorRegistry,
) -> None:
    cached = layer(backend, **SERVES)
    await take(cached, asks())
    clock.now += HOUR + 60
    error = PeerFailed("cannot: a b c")
    error.quoted = "a b c"
    backend.script = Script(error=error)
    with capture_logs() as logs:
        assert route(await take(cached, asks())).cache is CacheResult.HIT
        await until(lambda: not cached.ledger.refreshing)
    assert [line["error"] for line in logs] == ["cannot: (5 characters that are not logged)"]
    assert (refreshes(registry, "failed"), refreshes(registry, "ok")) == (1, None)
    assert route(await take(cached, asks())).cache is CacheResult.HIT


async def test_renewals_are_few_at_a_time(
    backend: EchoBackend,
    layer: Callable[..., Cached],
    clock: Clock,
    until: Callable[..., Any],
    registry: CollectorRegistry,
) -> None:
    cached, count = layer(backend, **SERVES), MOST_REFRESHES + 3
    for i in range(count):
        await take(cached, asks(str(i)))
    clock.now += HOUR + 60
    backend.script = Script(gate=asyncio.Event())
    for i in range(count):
        assert route(await take(cached, asks(str(i)))).cache is CacheResult.HIT
    await until(lambda: backend.open == MOST_REFRESHES)
    assert refreshes(registry, "skipped") == 3
    await cached.close()
    assert backend.open == 0


async def test_who_only_wants_what_is_stored_has_nothing_renewed(
    backend: EchoBackend, layer: Callable[..., Cached], clock: Clock
) -> None:
    cached = layer(backend, **SERVES)
    await take(cached, asks())
    clock.now += HOUR + 60
    answer = await take(cached, asks(mode=CacheMode.ONLY_IF_CACHED))
    assert route(answer).reasons[-1] == "cache: found in memory, stored 3660 s ago, stale"
    assert (len(backend.calls), cached.ledger.refreshing) == (1, 0)


@pytest.mark.parametrize("config", [{"ttl": HOUR}, SERVES, SPARES])
async def test_what_is_older_than_that_is_gone(
    backend: EchoBackend, layer: Callable[..., Cached], clock: Clock, config: Any
) -> None:
    cached = layer(backend, **config)
    await take(cached, asks())
    clock.now += 26 * HOUR
    backend.script = Script(error=WorkerDied("gone"))
    with pytest.raises(WorkerDied):
        await take(cached, asks())
    with pytest.raises(NotCached):
        await take(cached, asks(mode=CacheMode.ONLY_IF_CACHED))


@pytest.mark.parametrize("error", [WorkerDied("gone"), PeerFailed("bad"), FirstTokenTimeout("slow")])
async def test_where_the_model_fails_a_stale_answer_is_better_than_none(
    backend: EchoBackend, layer: Callable[..., Cached], clock: Clock, error: PolyrouteError
) -> None:
    cached = layer(backend, **SPARES)
    backend.script = Script(texts=["old"])
    await take(cached, asks())
    clock.now += 2 * HOUR
    error.attempts = (Attempt("m", "r1", reason=error.reason),)
    backend.script = Script(error=error)
    answers = await asyncio.gather(*(take(cached, asks()) for _ in range(5)))
    for answer in answers:
        assert (text(answer), route(answer).cache, route(answer).cache_age_s) == ("old", CacheResult.HIT, 2 * HOUR)
        assert route(answer).reasons[1:] == (
            "cache: found in memory, stored 7200 s ago, stale",
            f"cache: given because the model failed: {error.reason}",
        )
    assert [route(answer).attempts for answer in answers] == [error.attempts, (), (), (), ()]
    assert len(backend.calls) == 2
    backend.script = Script(texts=["new"])
    answer = await take(cached, asks())
    assert (text(answer), route(answer).cache) == ("new", CacheResult.MISS)


@pytest.mark.parametrize("coalesce", [True, False])
@pytest.mark.parametrize("error", [InvalidArgument("prompt", "bad"), Overloaded("full")])
async def test_an_error_that_is_no_failure_is_told(
    backend: EchoBackend, layer: Callable[..., Cached], clock: Clock, error: PolyrouteError, coalesce: bool
) -> None:
    cached = layer(backend, **SPARES, coalesce=coalesce)
    await take(cached, asks())
    clock.now += 2 * HOUR
    backend.script = Script(error=error)
    with pytest.raises(type(error), match=re.escape(error.message)):
        await take(cached, asks())


async def test_a_failure_in_the_middle_of_an_answer_is_told(
    backend: EchoBackend, layer: Callable[..., Cached], clock: Clock
) -> None:
    cached = layer(backend, **SPARES)
    await take(cached, asks())
    clock.now += 2 * HOUR
    gate = asyncio.Event()
    backend.script = Script(error=WorkerDied("gone"), error_after=1, gate=gate, gate_after=1)
    events = generator(cached(asks()))
    async with aclosing(events):
        assert isinstance(await anext(events), Started)
        gate.set()
        with pytest.raises(WorkerDied):
            [event async for event in events]


async def test_who_wants_none_that_old_has_the_error(
    backend: EchoBackend, layer: Callable[..., Cached], clock: Clock
) -> None:
    cached = layer(backend, **SPARES)
    await take(cached, asks())
    clock.now += 2 * HOUR
    backend.script = Script(error=WorkerDied("gone"))
    lenient, strict = await asyncio.gather(
        take(cached, asks()), take(cached, asks(max_age_s=60)), return_exceptions=True
    )
    assert isinstance(lenient, list)
    assert isinstance(strict, WorkerDied)


async def test_what_is_too_old_for_one_of_two_is_looked_up_for_the_other(
    backend: EchoBackend, layer: Callable[..., Cached], clock: Clock
) -> None:
    cached = layer(backend)
    backend.script = Script(texts=["old"])
    await take(cached, asks())
    clock.now += 100
    backend.script = Script(texts=["new"])
    strict, lenient = await asyncio.gather(take(cached, asks(max_age_s=60)), take(cached, asks()))
    assert (text(strict), route(strict).cache) == ("new", CacheResult.MISS)
    assert (text(lenient), route(lenient).cache) == ("old", CacheResult.HIT)


async def test_an_answer_is_as_old_as_the_stored_one_that_a_peer_gave(
    backend: EchoBackend, layer: Callable[..., Cached], clock: Clock
) -> None:
    aged_s = 50.0

    async def peer(call: Call) -> AsyncIterator[Event]:
        stored = Route(cache=CacheResult.HIT, cache_age_s=aged_s)
        yield Started(Route(version="echo-1", upstream=Route(cache=CacheResult.MISS, upstream=stored)))
        yield Token("x")
        yield Finished(FinishReason.STOP)

    async def told(max_age_s: float | None = None) -> tuple[CacheResult, float | None]:
        found = route(await take(cached, asks(max_age_s=max_age_s)))
        return found.cache, found.cache_age_s

    cached = layer(backend, peer, local=False, ttl=100)
    assert await told() == (CacheResult.MISS, None)
    clock.now += 10
    assert await told() == (CacheResult.HIT, 60)
    assert await told(55) == (CacheResult.MISS, None)
    assert await told(55) == (CacheResult.HIT, 50)
    clock.now += 60
    assert await told() == (CacheResult.MISS, None)
    clock.now += 60
    aged_s = 200.0
    assert [await told() for _ in range(2)] == [(CacheResult.MISS, None)] * 2  # too old as it comes
