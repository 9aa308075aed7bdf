"""What a tier below the memory holds is given without a run, and looked for once by all calls that ask the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.config import CacheConfig
from polyroute.core.errors import DeadlineExceeded, NotCached, PeerFailed
from polyroute.core.event import CacheResult, Event, Route, Started, Token, Whole, parts_of
from polyroute.core.request import CacheMode, CacheOptions, Request, Sampling
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.routing.cache.shelf import Shelf
from polyroute.routing.layers.cached import Cached
from polyroute.routing.metrics import Metrics
from polyroute.routing.streams import generator
from tests.clock import Clock
from tests.slot import Slot

CROWD = 20


@pytest.fixture
def disk() -> Slot:
    return Slot("disk")


@pytest.fixture
async def answers(codec: Any, clock: Clock, disk: Slot) -> AsyncIterator[Answers]:
    answers = Answers(MemoryTier(2**24, clock=clock), [GuardedTier(disk)], Invalidations(), codec, wall=clock)
    yield answers
    await answers.close()


@pytest.fixture
async def layer(answers: Answers, metrics: Metrics, clock: Clock) -> AsyncIterator[Callable[..., Cached]]:
    """Makes a cache around a backend, which keeps answers in the one tier below the memory alone."""
    made: list[Cached] = []

    def _layer(backend: EchoBackend, **config: Any) -> Cached:
        config.setdefault("tiers", ["disk"])
        shelf = Shelf("m", True, "f", CacheConfig(**config), backend.facts)
        made.append(Cached(backend.stream, shelf, answers, metrics, wall=clock))
        return made[-1]

    yield _layer
    for cached in made:
        await cached.close()


def asks(prompt: str = "a b c", *, deadline: float | None = None, **options: Any) -> Call:
    cache = CacheOptions(**options)
    return Call(Request(prompt=prompt, sampling=Sampling(temperature=0), cache=cache), "r", deadline=deadline)


async def events_of(cached: Cached, call: Call) -> list[Event]:
    async with aclosing(generator(cached(call))) as events:
        return [event async for event in events]


def route(events: list[Event]) -> Route:
    first = events[0].started if isinstance(events[0], Whole) else events[0]
    assert isinstance(first, Started)
    return first.route


def text(events: list[Event]) -> str:
    parts = [part for event in events for part in parts_of(event)]
    return "".join(part.text for part in parts if isinstance(part, Token))


async def stored(cached: Cached, answers: Answers) -> None:
    """The answer is in the tier, and nothing of it is on its way."""
    await events_of(cached, asks())
    await answers.flush()


def lookups(registry: CollectorRegistry) -> dict[str, float]:
    """How often the cache was asked, by what came of it."""
    found = {
        result: registry.get_sample_value("polyroute_cache_lookups_total", {"model": "m", "result": result})
        for result in ("hit", "miss", "coalesced", "error")
    }
    return {result: count for result, count in found.items() if count}


def crowd(cached: Cached, call: Call, count: int = CROWD) -> list[asyncio.Task[list[Event]]]:
    return [asyncio.create_task(events_of(cached, call)) for _ in range(count)]


async def held_up(
    disk: Slot, until: Callable[..., Any], cached: Cached, call: Call, count: int = CROWD
) -> list[asyncio.Task[list[Event]]]:
    """A crowd that waits for the tier, which is asked by the first of them."""
    disk.gate, before = asyncio.Event(), disk.asked
    tasks = crowd(cached, call, count)
    await until(lambda: disk.asked > before)
    for _ in range(3):
        await asyncio.sleep(0)
    assert disk.asked == before + 1
    return tasks


async def test_a_stored_answer_is_one_event_and_begins_no_run(
    backend: EchoBackend, layer: Callable[..., Cached], answers: Answers, registry: CollectorRegistry
) -> None:
    cached = layer(backend)
    await stored(cached, answers)
    cached.ledger.flights.begin = None  # type: ignore[assignment,method-assign]
    (event,) = events = await events_of(cached, asks())
    assert isinstance(event, Whole)
    assert route(events).cache is CacheResult.HIT
    assert route(events).reasons[-1] == "cache: found in disk, stored 0 s ago"
    assert (cached.ledger.stats.hits, cached.ledger.stats.misses) == (1, 1)
    assert lookups(registry) == {"hit": 1, "miss": 1}


async def test_equal_calls_ask_the_tier_once_and_each_has_the_answer(
    backend: EchoBackend, layer: Callable[..., Cached], answers: Answers, disk: Slot, until: Callable[..., Any]
) -> None:
    cached = layer(backend)
    await stored(cached, answers)
    tasks = await held_up(disk, until, cached, asks())
    disk.gate.set()  # type: ignore[union-attr]
    for events in await asyncio.gather(*tasks):
        assert (route(events).cache, text(events)) == (CacheResult.HIT, "a b c")
    assert cached.ledger.stats.hits == CROWD
    assert answers.below[0].counts.hits == 1


@pytest.mark.parametrize(
    ("config", "options"), [({"coalesce": False}, {}), ({}, {"mode": CacheMode.ONLY_IF_CACHED})], ids=["off", "only"]
)
async def test_those_that_share_no_run_share_a_look(
    backend: EchoBackend,
    layer: Callable[..., Cached],
    answers: Answers,
    disk: Slot,
    until: Callable[..., Any],
    config: dict[str, Any],
    options: dict[str, Any],
) -> None:
    cached = layer(backend, **config)
    await stored(cached, answers)
    tasks = await held_up(disk, until, cached, asks(**options))
    disk.gate.set()  # type: ignore[union-attr]
    assert {route(events).cache for events in await asyncio.gather(*tasks)} == {CacheResult.HIT}
    assert (cached.ledger.stats.hits, len(backend.calls)) == (CROWD, 1)


async def test_equal_calls_that_find_nothing_have_asked_once_and_share_one_run(
    backend: EchoBackend, layer: Callable[..., Cached], answers: Answers, disk: Slot, until: Callable[..., Any]
) -> None:
    cached = layer(backend)
    tasks = await held_up(disk, until, cached, asks())
    asked = disk.asked
    disk.gate.set()  # type: ignore[union-attr]
    results = [route(events).cache for events in await asyncio.gather(*tasks)]
    assert results == [CacheResult.MISS] + [CacheResult.COALESCED] * (CROWD - 1)
    await answers.flush()
    assert (len(backend.calls), disk.asked) == (1, asked + 1), "asked once, and given the answer once"
    assert (cached.ledger.stats.misses, answers.below[0].counts.misses) == (1, 1)


async def test_where_the_one_that_looks_leaves_another_one_does(
    backend: EchoBackend, layer: Callable[..., Cached], answers: Answers, disk: Slot, until: Callable[..., Any]
) -> None:
    cached = layer(backend)
    await stored(cached, answers)
    tasks = await held_up(disk, until, cached, asks())
    asked = disk.asked
    tasks[0].cancel()
    tasks[7].cancel()
    await until(lambda: disk.asked == asked + 1)
    disk.gate.set()  # type: ignore[union-attr]
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    left = [events for events in ended if not isinstance(events, BaseException)]
    assert len(left) == CROWD - 2
    assert {route(events).cache for events in left} == {CacheResult.HIT}
    assert disk.asked == asked + 1


async def test_who_comes_while_a_run_goes_on_joins_it_and_asks_no_tier(
    backend: EchoBackend, layer: Callable[..., Cached], disk: Slot, until: Callable[..., Any]
) -> None:
    cached, gate = layer(backend), asyncio.Event()
    backend.script = Script(gate=gate, gate_after=0)
    first = asyncio.create_task(events_of(cached, asks()))
    await until(lambda: backend.open)
    asked = disk.asked
    late = crowd(cached, asks())
    await until(lambda: cached.ledger.flights.following == CROWD + 1)
    assert disk.asked == asked
    gate.set()
    assert route(await first).cache is CacheResult.MISS
    assert {route(await task).cache for task in late} == {CacheResult.COALESCED}
    assert len(backend.calls) == 1


async def test_a_tier_that_fails_is_told_as_an_error_once(
    backend: EchoBackend, layer: Callable[..., Cached], disk: Slot, registry: CollectorRegistry
) -> None:
    cached = layer(backend)
    disk.error = OSError("gone")
    assert route(await events_of(cached, asks())).cache is CacheResult.MISS
    assert lookups(registry) == {"error": 1}


async def test_an_answer_that_is_too_old_is_kept_for_a_model_that_fails(
    backend: EchoBackend, layer: Callable[..., Cached], answers: Answers, disk: Slot, clock: Clock
) -> None:
    cached = layer(backend, ttl=60.0, stale_if_error=600.0)
    await stored(cached, answers)
    clock.now += 120
    backend.script = Script(error=PeerFailed("`m`: 500"))
    asked = disk.asked
    events = await events_of(cached, asks())
    assert route(events).cache is CacheResult.HIT
    assert route(events).reasons[-1] == "cache: given because the model failed: PEER_FAILED"
    assert disk.asked == asked + 1, "it was looked for once"


async def test_a_stale_answer_is_given_to_all_that_come_while_it_is_renewed(
    backend: EchoBackend, layer: Callable[..., Cached], answers: Answers, clock: Clock, until: Callable[..., Any]
) -> None:
    cached, gate = layer(backend, ttl=60.0, stale_while_revalidate=600.0), asyncio.Event()
    await stored(cached, answers)
    clock.now += 120
    backend.script = Script(gate=gate, gate_after=0)
    reasons = [route(await events_of(cached, asks())).reasons[-1] for _ in range(3)]
    assert reasons == ["cache: found in disk, stored 120 s ago, stale and being renewed"] * 3
    gate.set()
    await until(lambda: not len(cached.ledger.flights))
    await answers.flush()
    assert route(await events_of(cached, asks())).reasons[-1] == "cache: found in disk, stored 0 s ago"
    assert len(backend.calls) == 2


async def test_an_answer_that_is_invalidated_while_it_is_looked_for_fills_no_memory(
    backend: EchoBackend, layer: Callable[..., Cached], answers: Answers, disk: Slot, until: Callable[..., Any]
) -> None:
    cached = layer(backend, tiers=["memory", "disk"])
    await stored(cached, answers)
    answers.memory.forget(next(iter(disk.entries)))
    tasks = await held_up(disk, until, cached, asks())
    await answers._invalidations.invalidate("m")
    disk.gate.set()  # type: ignore[union-attr]
    await asyncio.gather(*tasks)
    assert len(answers.memory) == 0
    disk.gate = None
    assert route(await events_of(cached, asks())).cache is CacheResult.MISS


async def test_a_deadline_ends_a_call_that_waits_for_the_tier(
    backend: EchoBackend, layer: Callable[..., Cached], answers: Answers, disk: Slot
) -> None:
    cached = layer(backend)
    await stored(cached, answers)
    disk.gate = asyncio.Event()
    with pytest.raises(DeadlineExceeded):
        await events_of(cached, asks(deadline=time.monotonic() + 0.02))


async def test_a_deadline_that_has_come_near_is_watched_where_the_one_that_looks_leaves(
    backend: EchoBackend, layer: Callable[..., Cached], disk: Slot, until: Callable[..., Any]
) -> None:
    cached = layer(backend)
    (first,) = await held_up(disk, until, cached, asks(), 1)
    second = asyncio.create_task(events_of(cached, asks(deadline=time.monotonic() + disk.get_s * 2)))
    await asyncio.sleep(0)
    assert len(cached.ledger.flights) == 0
    disk.get_s *= 4  # as if so much time had passed
    first.cancel()
    await until(lambda: disk.asked == 2)
    assert len(cached.ledger.flights) == 1, "which is left at the deadline"
    disk.gate.set()  # type: ignore[union-attr]
    assert text(await second) == "a b c"


@pytest.mark.parametrize("options", [{}, {"max_age_s": 600.0}, {"mode": CacheMode.ONLY_IF_CACHED}])
async def test_what_a_call_asks_of_the_cache_holds(
    backend: EchoBackend, layer: Callable[..., Cached], answers: Answers, options: dict[str, Any]
) -> None:
    cached = layer(backend)
    await stored(cached, answers)
    assert route(await events_of(cached, asks(**options))).cache is CacheResult.HIT


@pytest.mark.parametrize("options", [{"max_age_s": 0.0}, {"mode": CacheMode.REFRESH}, {"mode": CacheMode.BYPASS}])
async def test_what_a_call_does_not_want_it_does_not_get(
    backend: EchoBackend, layer: Callable[..., Cached], answers: Answers, clock: Clock, options: dict[str, Any]
) -> None:
    cached = layer(backend)
    await stored(cached, answers)
    clock.now += 1
    assert route(await events_of(cached, asks(**options))).cache is not CacheResult.HIT
    assert len(backend.calls) == 2


async def test_an_answer_that_nobody_has_is_refused_where_only_a_stored_one_will_do(
    backend: EchoBackend, layer: Callable[..., Cached]
) -> None:
    with pytest.raises(NotCached):
        await events_of(layer(backend), asks(mode=CacheMode.ONLY_IF_CACHED))


async def test_the_original_pace_is_kept(backend: EchoBackend, layer: Callable[..., Cached], answers: Answers) -> None:
    cached = layer(backend)
    await stored(cached, answers)
    call = asks()
    paced = replace(call, request=replace(call.request, cache=CacheOptions(original_pace=True)))
    events = await events_of(cached, paced)
    assert route(events).cache is CacheResult.HIT
    assert len(events) > 1
