"""A second replica is asked beside a slow one; the first to answer is kept, the other closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import cast

import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.errors import PeerFailed
from polyroute.core.event import Event
from tests.unit.backends.pool.pools import World, answered, in_flight, opened, replicas, used

SOON = {"after": "1ms"}


@pytest.fixture
def world() -> World:
    return World()


def slow_and_fast(world: World) -> tuple[EchoBackend, EchoBackend]:
    """The first one asked hangs, whichever that is; the other one answers."""
    backends = replicas(2)
    for backend in backends:
        backend.script = lambda _call: (
            Script(gate=asyncio.Event()) if len(backends[0].calls) == len(backends[1].calls) else Script()
        )
    return backends[0], backends[1]


async def test_the_second_answers_and_the_first_is_closed(world: World) -> None:
    slow, fast = slow_and_fast(world)
    pool = world.pool(slow, fast, hedge=SOON)
    async with aclosing(opened(pool)) as events:
        route = (await anext(events)).route  # type: ignore[union-attr]
        assert sorted((slow.open, fast.open)) == [0, 1]
        assert sorted(in_flight(pool)) == [0, 1]
        assert [event async for event in events]
    assert any("was asked as well after 0.001 s" in reason for reason in route.reasons)
    assert (slow.open, fast.open, slow.closed_early + fast.closed_early) == (0, 0, 1)
    assert in_flight(pool) == [0, 0]
    assert world.hedges == ["won"]
    assert [replica.breaker for replica in pool.status().replicas] == ["closed", "closed"]


@pytest.mark.parametrize(("silent_s", "breaker"), [(1.9, "closed"), (2.1, "open")])
async def test_a_replica_that_hangs_does_not_hide_behind_the_second(
    world: World, silent_s: float, breaker: str
) -> None:
    """Calls usually need 2 s at most: twice the time of the 95th percentile."""
    slow, fast = slow_and_fast(world)
    pool = world.pool(slow, fast, hedge=SOON, breaker={"failures": 1})
    for _ in range(20):
        pool._attempts._first_tokens.add(1.0)

    def script(_call: object) -> Script:
        if len(slow.calls) == len(fast.calls):
            return Script(gate=asyncio.Event())
        world.now += silent_s
        return Script()

    slow.script = fast.script = script
    route = await answered(pool)
    (loser,) = [replica for replica in pool.status().replicas if replica.name != route.replica]
    assert loser.breaker == breaker
    assert in_flight(pool) == [0, 0]
    assert world.hedges == ["won"]


async def test_the_first_that_answers_in_time_has_no_second(world: World) -> None:
    backends = replicas(2)
    await used(world.pool(*backends, hedge={"after": "60s"}), 5)
    assert sum(len(backend.calls) for backend in backends) == 5
    assert world.hedges == []


async def test_the_first_may_win_all_the_same(world: World) -> None:
    gate = asyncio.Event()
    backends = replicas(2)

    def script(_call: object) -> Script:
        if sum(len(backend.calls) for backend in backends):  # the second one: hangs, and lets the first go on
            gate.set()
            return Script(gate=asyncio.Event())
        return Script(gate=gate)

    for backend in backends:
        backend.script = script
    await answered(world.pool(*backends, hedge=SOON))
    assert world.hedges == ["lost"]
    assert sum(backend.closed_early for backend in backends) == 1


async def test_where_both_fail_the_call_does_and_tells_both(world: World) -> None:
    gate = asyncio.Event()
    backends = replicas(2)

    def script(_call: object) -> Script:
        if sum(len(backend.calls) for backend in backends):
            gate.set()
            return Script(error=PeerFailed("second"))
        return Script(gate=gate, error=PeerFailed("first"))

    for backend in backends:
        backend.script = script
    pool = world.pool(*backends, hedge=SOON, retries=0)
    with pytest.raises(PeerFailed) as failed:
        await used(pool, 1)
    assert sorted(attempt.message for attempt in failed.value.attempts) == ["first", "second"]
    assert world.hedges == ["failed"]
    assert in_flight(pool) == [0, 0]


async def test_a_second_that_fails_leaves_the_first_alone(world: World) -> None:
    gate, failing = asyncio.Event(), asyncio.Event()
    backends = replicas(2)

    def script(_call: object) -> Script:
        if sum(len(backend.calls) for backend in backends):
            failing.set()
            return Script(error=PeerFailed("second"))
        return Script(gate=gate)

    for backend in backends:
        backend.script = script
    pool = world.pool(*backends, hedge=SOON)
    call = asyncio.create_task(answered(pool))
    await failing.wait()
    while sum(in_flight(pool)) != 1:  # noqa: ASYNC110 - the second is closed when the first is the only one
        await asyncio.sleep(0)
    gate.set()
    route = await call
    assert [attempt.message for attempt in route.attempts] == ["second"]
    assert world.hedges == ["lost"]


async def test_a_pool_of_one_never_hedges(world: World) -> None:
    gate = asyncio.Event()
    (only,) = replicas(1, Script(gate=gate))
    asyncio.get_running_loop().call_later(0.02, gate.set)
    await answered(world.pool(only, hedge=SOON))
    assert len(only.calls) == 1


@pytest.mark.parametrize("unfit", ["failed", "no budget"])
async def test_no_second_without_a_replica_that_is_well_or_without_budget(world: World, unfit: str) -> None:
    gate = asyncio.Event()
    backends = replicas(2, Script(gate=gate))
    budget = {"share": 0, "min_per_second": 0} if unfit == "no budget" else {}
    pool = world.pool(*backends, hedge=SOON, retry_budget=budget)
    if unfit == "failed":
        backends[1].state = ModelState.FAILED
    asyncio.get_running_loop().call_later(0.02, gate.set)
    await answered(pool)
    assert sum(len(backend.calls) for backend in backends) == 1
    assert world.hedges == (["no_budget"] if unfit == "no budget" else [])


async def test_a_percentile_needs_to_be_known(world: World) -> None:
    backends = replicas(2)
    pool = world.pool(*backends, hedge={"after": "p95"})
    assert pool._attempts._hedge_after_s() is None
    await used(pool, 20)
    assert pool._attempts._hedge_after_s() == 0.0


async def test_a_caller_that_leaves_closes_both(world: World) -> None:
    second = asyncio.Event()
    backends = replicas(2)

    def script(_call: object) -> Script:
        if sum(len(backend.calls) for backend in backends):
            second.set()
        return Script(gate=asyncio.Event())

    for backend in backends:
        backend.script = script
    pool = world.pool(*backends, hedge=SOON)
    call = asyncio.create_task(used(pool, 1))
    await second.wait()
    assert in_flight(pool) == [1, 1]
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert in_flight(pool) == [0, 0]
    assert [backend.open for backend in backends] == [0, 0]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0)


class Clinging(EchoBackend):
    """Ends no stream that is left before `let_go` is set."""

    let_go: asyncio.Event
    held = 0

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        try:
            async with aclosing(cast("AsyncGenerator[Event, None]", super().stream(call))) as events:
                async for event in events:
                    yield event
        finally:
            self.held += 1
            await self.let_go.wait()
            self.held -= 1


async def test_a_caller_that_leaves_twice_closes_both_all_the_same(world: World) -> None:
    """Its deadline passes, say, while it is being let go."""
    backends = [Clinging("m", replica=f"r{i}", script=Script(gate=asyncio.Event())) for i in range(2)]
    let_go = asyncio.Event()
    for backend in backends:
        backend.let_go = let_go
    pool = world.pool(*backends, hedge=SOON)
    call = asyncio.create_task(used(pool, 1))
    await until(lambda: in_flight(pool) == [1, 1])
    call.cancel()
    await until(lambda: [backend.held for backend in backends] == [1, 1])
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    let_go.set()
    await until(lambda: in_flight(pool) == [0, 0])
    assert [backend.open for backend in backends] == [0, 0]
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_one_that_is_cancelled_before_it_has_asked_is_given_back(world: World) -> None:
    """As all tasks are when an event loop ends."""

    class Unasked(EchoBackend):
        def stream(self, call: Call) -> AsyncIterator[Event]:
            asyncio.get_running_loop().call_soon(cancel)
            return super().stream(call)

    def cancel() -> None:
        for task in asyncio.all_tasks():
            if task.get_name() == "attempt at r0":
                task.cancel()

    backend = Unasked("m", replica="r0")
    pool = world.pool(backend, EchoBackend("m", replica="r1", state=ModelState.FAILED), hedge={"after": "60s"})
    with pytest.raises(asyncio.CancelledError):
        await used(pool, 1)
    assert backend.calls == []
    assert in_flight(pool) == [0, 0]


async def test_one_that_fails_as_the_other_answers_is_told_of(world: World) -> None:
    gate, backends = asyncio.Event(), replicas(2)

    def script(_call: object) -> Script:
        is_second = any(backend.calls for backend in backends)
        return Script(gate=gate, error=PeerFailed("broken") if is_second else None)

    for backend in backends:
        backend.script = script
    call = asyncio.create_task(answered(world.pool(*backends, hedge=SOON)))
    await until(lambda: all(backend.calls for backend in backends))
    gate.set()
    assert [attempt.message for attempt in (await call).attempts] == ["broken"]
