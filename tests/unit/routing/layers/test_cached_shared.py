"""Equal calls in flight share one run, and each of them has an outcome that is fair to it."""

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
from polyroute.core.errors import (
    DeadlineExceeded,
    Draining,
    InvalidArgument,
    ModelLoading,
    Overloaded,
    PolyrouteError,
    PromptTooLong,
    WorkerDied,
)
from polyroute.core.event import CacheResult, Event, Finished, FinishReason, Route, Started, Token, parts_of
from polyroute.core.request import CacheMode, CacheOptions, Request, RoutingOptions, Sampling
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.shelf import Shelf
from polyroute.routing.layers.cached import MOST_RUNS, Cached
from polyroute.routing.layers.limited import Limited
from polyroute.routing.metrics import Metrics
from polyroute.routing.permits import Permits
from polyroute.routing.streams import generator

CROWD = 20


def asks(mode: CacheMode = CacheMode.UNSPECIFIED, *, prompt: str = "a b c", **call: Any) -> Call:
    options = CacheOptions(mode, call.pop("max_age_s", None))
    routing = RoutingOptions(user=call.pop("user", ""))
    request = Request(prompt=prompt, sampling=Sampling(temperature=call.pop("temperature", 0)), cache=options)
    return Call(replace(request, routing=routing), "r", **call)


async def take(cached: Cached, call: Call) -> list[Event]:
    async with aclosing(generator(cached(call))) as events:
        return [part async for event in events for part in parts_of(event)]


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def route(events: list[Event]) -> Route:
    assert isinstance(events[0], Started)
    return events[0].route


class Gate:
    """Holds a backend up at one place, until it is opened."""

    def __init__(self, backend: EchoBackend, at: int = 0, **script: Any) -> None:
        self.open = asyncio.Event()
        self.script = backend.script = Script(gate=self.open, gate_after=at, **script)


def crowd(cached: Cached, count: int = CROWD, **call: Any) -> list[asyncio.Task[list[Event]]]:
    return [asyncio.create_task(take(cached, asks(**call))) for _ in range(count)]


async def test_equal_calls_are_one_run(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any], registry: CollectorRegistry
) -> None:
    cached, gate = layer(backend), Gate(backend, 1)
    first = crowd(cached)
    await until(lambda: backend.open)
    late = crowd(cached)
    await asyncio.sleep(0)
    gate.open.set()
    answers = await asyncio.gather(*first, *late)
    assert [text(answer) for answer in answers] == ["a b c"] * 2 * CROWD
    assert len(backend.calls) == 1
    results = [route(answer).cache for answer in answers]
    assert results == [CacheResult.MISS] + [CacheResult.COALESCED] * (2 * CROWD - 1)
    assert route(answers[0]).reasons[-1] == "cache: not found"
    assert route(answers[1]).reasons == (
        "cache: used, temperature 0 is deterministic",
        "cache: joined the run of an equal call that was under way",
    )
    assert {route(answer).cache_key for answer in answers} == {route(answers[0]).cache_key}
    assert all(route(answer).replica == "echo" for answer in answers)
    assert route(await take(cached, asks())).cache is CacheResult.HIT, "whoever comes after the end has it stored"
    stats = cached.ledger.stats
    assert (stats.misses, stats.coalesced, stats.hits, stats.stores) == (1, 2 * CROWD - 1, 1, 1)
    coalesced = registry.get_sample_value("polyroute_cache_lookups_total", {"model": "m", "result": "coalesced"})
    assert coalesced == 2 * CROWD - 1


async def test_a_memory_that_is_the_only_tier_is_counted_as_asked_once_for_all(
    backend: EchoBackend, layer: Callable[..., Cached], in_memory: Answers, until: Callable[..., Any]
) -> None:
    cached, gate = layer(backend, tiers={"memory": {}}), Gate(backend, 1)
    tasks = crowd(cached, 3)
    await until(lambda: cached.ledger.flights.following == 3)
    gate.open.set()
    await asyncio.gather(*tasks)
    assert (in_memory.counts.misses, in_memory.counts.hits, cached.ledger.stats.misses) == (1, 0, 1)
    assert route(await take(cached, asks())).cache is CacheResult.HIT
    assert (in_memory.counts.misses, in_memory.counts.hits) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        asks(prompt="a b d"),
        asks(CacheMode.BYPASS),
        asks(CacheMode.REFRESH),
        asks(wait_for_load=False),
        asks(tenant="theirs"),
    ],
    ids=["another", "bypass", "refresh", "unwilling to wait", "another tenant's"],
)
async def test_calls_that_are_not_equal_share_nothing(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any], other: Call
) -> None:
    cached, gate = layer(backend), Gate(backend, 1)
    tasks = [asyncio.create_task(take(cached, call)) for call in (asks(), other)]
    await until(lambda: backend.open == 2)
    gate.open.set()
    answers = await asyncio.gather(*tasks)
    assert CacheResult.COALESCED not in [route(answer).cache for answer in answers]


@pytest.mark.parametrize(("local", "runs"), [(True, 1), (False, 2)])
async def test_a_peer_that_may_answer_from_its_own_cache_is_asked_for_each_greatest_age(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any], local: bool, runs: int
) -> None:
    cached, gate = layer(backend, local=local), Gate(backend, 1)
    tasks = [asyncio.create_task(take(cached, asks(max_age_s=age_s))) for age_s in (None, 60, None, 60)]
    await until(lambda: cached.ledger.flights.following == 4 and backend.open == runs)
    gate.open.set()
    await asyncio.gather(*tasks)
    assert len(backend.calls) == runs


async def test_a_run_that_renews_is_not_joined_by_those_that_would_take_a_stored_one(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    cached, gate = layer(backend), Gate(backend, 1)
    refresh = [asyncio.create_task(take(cached, asks(CacheMode.REFRESH))) for _ in range(2)]
    await until(lambda: backend.open == 2)
    usual = asyncio.create_task(take(cached, asks()))
    await until(lambda: backend.open == 3)
    gate.open.set()
    await asyncio.gather(*refresh, usual)


async def test_sampled_calls_are_each_their_own_unless_the_model_keeps_them(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    for mode, runs in (("deterministic", 3), ("always", 1), ("opt_in", 3)):
        gate, before = Gate(backend, 1), len(backend.calls)
        tasks = crowd(layer(backend, mode=mode), 3, temperature=0.7, prompt=mode)
        await until(lambda: backend.open == runs)  # noqa: B023 - waited for here
        gate.open.set()
        await asyncio.gather(*tasks)
        assert len(backend.calls) == before + runs


async def test_sharing_can_be_turned_off(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    gate = Gate(backend, 1)
    tasks = crowd(layer(backend, coalesce=False), 3)
    await until(lambda: backend.open == 3)
    gate.open.set()
    assert [route(answer).cache for answer in await asyncio.gather(*tasks)] == [CacheResult.MISS] * 3


async def test_whoever_began_it_may_leave(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    cached, gate = layer(backend), Gate(backend, 1)
    leader, *others = crowd(cached, 3)
    await until(lambda: backend.open)
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.wait({leader})
    assert (leader.cancelled(), backend.open) == (True, 1)
    gate.open.set()
    assert [text(await other) for other in others] == ["a b c"] * 2
    assert (len(backend.calls), backend.closed_early) == (1, 0)


async def test_the_last_to_leave_ends_it(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    cached, _ = layer(backend), Gate(backend, 1)
    tasks = crowd(cached, 3)
    await until(lambda: backend.open)
    for task in tasks:
        assert backend.closed_early == 0
        task.cancel()
        await asyncio.wait({task})
    assert (backend.open, backend.closed_early) == (0, 1)
    backend.script = Script()
    assert route(await take(cached, asks())).cache is CacheResult.MISS


async def test_a_call_that_shares_nothing_has_a_run_of_its_own_which_ends_with_it(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    cached, _ = layer(backend), Gate(backend, 1)
    deadline = time.monotonic() + 3600
    (task,) = crowd(cached, 1, mode=CacheMode.REFRESH, deadline=deadline)
    await until(lambda: backend.open)
    assert [call.deadline for call in backend.calls] == [deadline], "it has no other"
    assert len(cached.ledger.flights) == 0, "what is counted there can be joined"
    task.cancel()
    await asyncio.wait({task})
    assert (backend.open, backend.closed_early) == (0, 1)


async def test_a_call_that_shares_nothing_is_over_once_all_below_it_is(
    answers: Answers, metrics: Metrics, backend: EchoBackend
) -> None:
    """Whoever waits for the call to end, such as a reload, may take what it used."""
    open_ = 0

    async def lingering(call: Call) -> AsyncIterator[Event]:
        nonlocal open_
        open_ += 1
        async with aclosing(generator(backend.stream(call))) as events:
            async for event in events:
                yield event
        for _ in range(5):
            await asyncio.sleep(0)
        open_ -= 1

    cached = Cached(lingering, Shelf("m", True, "f", CacheConfig(), backend.facts), answers, metrics)
    events = await take(cached, asks(CacheMode.REFRESH))
    assert (text(events), open_) == ("a b c", 0)


@pytest.mark.parametrize("mode", [CacheMode.UNSPECIFIED, CacheMode.REFRESH])
async def test_a_run_waits_for_who_reads_slowly_once_it_holds_enough(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any], mode: CacheMode
) -> None:
    cached, made = layer(backend), list[int]()

    async def pause(place: int) -> None:
        made.append(place)

    backend.script = Script(texts=["word "] * 100, pause=pause)
    cached.ledger.flights.most_bytes = 1000
    async with aclosing(generator(cached(asks(mode)))) as events:
        await anext(events)
        await until(lambda: len(made) > 1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(made) < 20, "it holds what it may, and the next"
        assert text([event async for event in events]) == "word " * 100
    assert len(made) == 101


async def test_a_failure_of_a_run_that_is_nobody_elses_is_its_calls_own(
    backend: EchoBackend, layer: Callable[..., Cached]
) -> None:
    backend.script = Script(error=WorkerDied("gone"))
    with pytest.raises(WorkerDied, match="gone") as raised:
        await take(layer(backend), asks(CacheMode.REFRESH))
    assert not raised.value.shared
    assert len(backend.calls) == 1, "another run is for those who joined one"


async def test_a_call_that_comes_while_an_abandoned_run_ends_has_its_own(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    ending = asyncio.Event()

    async def inner(call: Call) -> AsyncIterator[Event]:
        try:
            async with aclosing(generator(backend.stream(call))) as events:
                async for event in events:
                    yield event
        finally:
            await ending.wait()

    cached, _ = layer(backend, inner), Gate(backend, 1)
    (left,) = crowd(cached, 1)
    await until(lambda: backend.open)
    left.cancel()
    await until(lambda: backend.closed_early)
    backend.script = Script()
    (own,) = crowd(cached, 1)
    ending.set()
    assert route(await own).cache is CacheResult.MISS
    await asyncio.wait({left})


async def test_each_has_its_own_deadline_and_the_run_has_none(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    cached, gate = layer(backend), Gate(backend, 1)
    hasty = asyncio.create_task(take(cached, asks(deadline=time.monotonic() + 0.05)))
    patient = asyncio.create_task(take(cached, asks(deadline=time.monotonic() + 3600)))
    with pytest.raises(DeadlineExceeded, match="`m`: the caller's deadline passed before the answer was complete"):
        await hasty
    gate.open.set()
    assert text(await patient) == "a b c"
    assert [call.deadline for call in backend.calls] == [None]


async def failures(tasks: list[asyncio.Task[list[Event]]]) -> list[BaseException]:
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [result for result in results if isinstance(result, BaseException)]


async def test_after_a_failure_the_others_have_another_run_together(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    cached, gate = layer(backend), Gate(backend, 0, error=WorkerDied("gone"))
    backend.script = lambda _: gate.script if len(backend.calls) == 0 else Script()
    tasks = crowd(cached)
    await until(lambda: backend.open)
    gate.open.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], WorkerDied)
    assert all(isinstance(answer, list) and text(answer) == "a b c" for answer in answers[1:])
    assert len(backend.calls) == 2


async def test_runs_that_fail_again_and_again_are_few_and_one_at_a_time(
    backend: EchoBackend, layer: Callable[..., Cached]
) -> None:
    most = 0

    async def pause(_: int) -> None:
        nonlocal most
        most = max(most, backend.open)
        await asyncio.sleep(0)

    backend.script = Script(error=WorkerDied("gone"), pause=pause)
    failed = await failures(crowd(layer(backend)))
    assert len(failed) == CROWD
    assert all(isinstance(error, WorkerDied) and error.message == "gone" for error in failed)
    assert len({id(error) for error in failed}) == CROWD, "each has one of its own"
    assert sum(not error.shared for error in failed if isinstance(error, WorkerDied)) == MOST_RUNS
    assert (len(backend.calls), most) == (MOST_RUNS, 1)


@pytest.mark.parametrize("error", [InvalidArgument("prompt", "bad"), PromptTooLong("prompt", "too long")])
async def test_what_is_wrong_with_the_request_is_wrong_for_all(
    backend: EchoBackend, layer: Callable[..., Cached], error: PolyrouteError
) -> None:
    backend.script = Script(error=error)
    failed = await failures(crowd(layer(backend)))
    assert [type(one) for one in failed] == [type(error)] * CROWD
    assert len(backend.calls) == 1


async def test_those_that_have_a_part_of_the_answer_have_the_error_too(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    cached, gate = layer(backend), Gate(backend, 2, error=WorkerDied("gone"), error_after=2)
    tasks = crowd(cached, 3)
    await until(lambda: backend.open)
    for _ in range(10):
        await asyncio.sleep(0)
    gate.open.set()
    assert [type(error) for error in await failures(tasks)] == [WorkerDied] * 3
    assert len(backend.calls) == 1


async def test_a_crash_is_nobodys_answer(backend: EchoBackend, layer: Callable[..., Cached]) -> None:
    backend.script = Script(error=ZeroDivisionError())
    failed = await failures(crowd(layer(backend)))
    assert len(failed) == CROWD
    assert not any(isinstance(error, PolyrouteError) for error in failed)
    assert len(backend.calls) == MOST_RUNS


async def test_who_is_refused_for_its_own_sake_is_refused_alone(
    backend: EchoBackend, layer: Callable[..., Cached], metrics: Metrics, until: Callable[..., Any]
) -> None:
    """The queue is full of one caller's calls: that one gets no turn, and others do."""
    permits = Permits("m", 1, 2, 60)
    cached, gate = layer(backend, Limited(backend.stream, permits, metrics)), Gate(backend, 1)
    before = [asyncio.create_task(take(cached, asks(prompt=str(i), user="busy"))) for i in range(3)]
    await until(lambda: permits.queued == 2)
    greedy, *modest = [asyncio.create_task(take(cached, asks(user=user))) for user in ("busy", "ann", "ben", "cy")]
    with pytest.raises(Overloaded, match="`m`: 2 waiting, limit 2"):
        await greedy
    await until(lambda: before[2].done())  # pushed out by the others' run, which has a place of its own
    gate.open.set()
    assert [text(answer) for answer in await asyncio.gather(*modest)] == ["a b c"] * 3
    assert len(backend.calls) == 3
    await asyncio.gather(*before, return_exceptions=True)


async def test_a_permit_is_taken_once(
    backend: EchoBackend, layer: Callable[..., Cached], metrics: Metrics, until: Callable[..., Any]
) -> None:
    permits = Permits("m", 1, 0, 60)
    cached, gate = layer(backend, Limited(backend.stream, permits, metrics)), Gate(backend, 1)
    tasks = crowd(cached)
    await until(lambda: backend.open)
    assert permits.in_flight == 1
    gate.open.set()
    answers = await asyncio.gather(*tasks)
    await until(lambda: permits.in_flight == 0)
    ends = [answer[-1] for answer in answers]
    assert all(isinstance(end, Finished) for end in ends)


async def test_a_queued_run_waits_as_long_as_any_of_its_followers(
    backend: EchoBackend, layer: Callable[..., Cached], metrics: Metrics, until: Callable[..., Any]
) -> None:
    permits = Permits("m", 1, 8, 3600)
    cached, gate = layer(backend, Limited(backend.stream, permits, metrics)), Gate(backend, 1)
    other = asyncio.create_task(take(cached, asks(prompt="x")))
    await until(lambda: backend.open)
    hasty = asyncio.create_task(take(cached, asks(deadline=time.monotonic() + 0.05)))
    patient = asyncio.create_task(take(cached, asks(deadline=time.monotonic() + 3600)))
    with pytest.raises(DeadlineExceeded):
        await hasty
    assert permits.queued == 1
    gate.open.set()
    assert text(await patient) == "a b c"
    await other


async def test_a_call_that_will_not_wait_for_a_load_is_refused_beside_one_that_does(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    gate = Gate(backend, 1)

    async def inner(call: Call) -> AsyncIterator[Event]:
        if not call.wait_for_load:
            raise ModelLoading("being loaded")
        async with aclosing(generator(backend.stream(call))) as events:
            async for event in events:
                yield event

    cached = layer(backend, inner)
    (waiting,) = crowd(cached, 1)
    await until(lambda: backend.open)
    with pytest.raises(ModelLoading):
        await take(cached, asks(wait_for_load=False))
    gate.open.set()
    await waiting


async def test_a_filtered_answer_goes_to_those_that_share_the_run_and_to_nobody_else(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    cached, gate = layer(backend), Gate(backend, 1, reason=FinishReason.CONTENT_FILTER)
    tasks = crowd(cached, 2)
    await until(lambda: backend.open)
    gate.open.set()
    assert [answer[-1].reason for answer in await asyncio.gather(*tasks)] == [FinishReason.CONTENT_FILTER] * 2  # type: ignore[union-attr]
    assert route(await take(cached, asks())).cache is CacheResult.MISS


async def test_closing_ends_what_goes_on(
    backend: EchoBackend, layer: Callable[..., Cached], until: Callable[..., Any]
) -> None:
    cached, _ = layer(backend), Gate(backend, 1)
    tasks = crowd(cached, 2)
    await until(lambda: backend.open)
    for _ in range(10):
        await asyncio.sleep(0)
    await cached.close()
    assert [type(error) for error in await failures(tasks)] == [Draining] * 2
    assert backend.open == 0
