"""A pool spreads calls fairly, keeps its counts whatever happens to a stream, and shows its replicas as one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.pool import Balance, Pool
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.config import RemoteConfig
from polyroute.core.errors import ModelFailed, PeerUnreachable
from polyroute.core.event import Event, Started
from polyroute.core.request import Request

CALL = Call(Request(model="m", prompt="a b c"), "r1")
BALANCES: list[Balance] = ["least_outstanding", "round_robin"]


def replicas(count: int, script: Script | None = None) -> list[EchoBackend]:
    return [EchoBackend("m", replica=f"r{i}", script=script) for i in range(count)]


def opened(pool: Pool) -> AsyncGenerator[Event, None]:
    return cast("AsyncGenerator[Event, None]", pool.stream(CALL))


async def replica_of(events: AsyncGenerator[Event, None]) -> str:
    """Takes the first event, and leaves the stream open."""
    first = await anext(events)
    assert isinstance(first, Started)
    return first.route.replica


async def used(pool: Pool, calls: int) -> list[str]:
    """The replicas that `calls` calls went to, one call after the other."""
    names = []
    for _ in range(calls):
        async with aclosing(opened(pool)) as events:
            names.append(await replica_of(events))
            async for _event in events:
                pass
    return names


def in_flight(pool: Pool) -> list[int]:
    return [replica.in_flight for replica in pool.status().replicas]


@pytest.mark.parametrize("balance", BALANCES)
async def test_calls_one_after_the_other_go_round(balance: Balance) -> None:
    """With nothing in flight every choice is a tie, and a tie must not always be the first replica's."""
    assert Counter(await used(Pool(replicas(3), balance), 9)) == {"r0": 3, "r1": 3, "r2": 3}


async def test_the_fewest_outstanding_gets_the_next_call() -> None:
    pool = Pool(replicas(3))
    streams = [opened(pool) for _ in range(7)]
    for stream in streams:
        await anext(stream)
    assert sorted(in_flight(pool)) == [2, 2, 3]
    busy = in_flight(pool)
    await streams[1].aclose()
    freed = next(i for i, (now, before) in enumerate(zip(in_flight(pool), busy, strict=True)) if now < before)
    async with aclosing(opened(pool)) as another:
        assert await replica_of(another) == f"r{freed}"
    for stream in streams:
        await stream.aclose()
    assert in_flight(pool) == [0, 0, 0]


async def test_round_robin_does_not_look_at_what_is_in_flight() -> None:
    pool = Pool(replicas(2), "round_robin")
    streams = [opened(pool) for _ in range(4)]
    names = [await replica_of(stream) for stream in streams]
    assert names == ["r0", "r1", "r0", "r1"]
    await streams[0].aclose()
    await streams[2].aclose()
    streams += [opened(pool), opened(pool)]
    assert [await replica_of(stream) for stream in streams[4:]] == ["r0", "r1"]
    for stream in streams:
        await stream.aclose()


async def test_a_stream_never_begun_is_not_in_flight() -> None:
    pool = Pool(replicas(1))
    stream = opened(pool)
    assert in_flight(pool) == [0]
    await stream.aclose()
    assert in_flight(pool) == [0]


async def test_a_call_waiting_for_its_first_token_is_in_flight_and_a_cancel_ends_that() -> None:
    begun = asyncio.Event()

    async def pause(_place: int) -> None:
        begun.set()

    backends = replicas(1, Script(gate=asyncio.Event(), pause=pause))
    pool = Pool(backends)
    task = asyncio.create_task(used(pool, 1))
    await begun.wait()
    assert in_flight(pool) == [1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert in_flight(pool) == [0]
    assert (backends[0].open, backends[0].closed_early) == (0, 1)


async def test_leaving_early_closes_the_replicas_stream() -> None:
    backends = replicas(1)
    pool = Pool(backends)
    async with aclosing(opened(pool)) as events:
        await anext(events)
        assert backends[0].open == 1
    assert (backends[0].open, backends[0].closed_early) == (0, 1)


@pytest.mark.parametrize("after", [0, 2])
async def test_a_failing_call_is_not_tried_again_here(after: int) -> None:
    backends = replicas(2, Script(error=PeerUnreachable("gone"), error_after=after))
    pool = Pool(backends)
    with pytest.raises(PeerUnreachable):
        await used(pool, 1)
    assert [len(backend.calls) for backend in backends] == [1, 0]
    assert in_flight(pool) == [0, 0]


@pytest.mark.parametrize("balance", BALANCES)
async def test_failed_replicas_are_skipped_while_a_better_one_exists(balance: Balance) -> None:
    backends = replicas(3)
    pool = Pool(backends, balance)
    backends[0].state = backends[2].state = ModelState.FAILED
    assert await used(pool, 4) == ["r1"] * 4
    backends[1].state = ModelState.LOADING
    assert await used(pool, 2) == ["r1"] * 2
    backends[2].state = ModelState.WARM
    assert await used(pool, 2) == ["r2"] * 2


async def test_with_every_replica_failed_one_is_tried_all_the_same() -> None:
    backends = replicas(2)
    for backend in backends:
        backend.state = ModelState.FAILED
    with pytest.raises(ModelFailed):
        await used(Pool(backends), 1)
    assert sum(len(backend.calls) for backend in backends) == 1


@pytest.mark.parametrize(
    ("states", "merged"),
    [
        ([ModelState.FAILED, ModelState.WARM], ModelState.WARM),
        ([ModelState.FAILED, ModelState.LOADING], ModelState.LOADING),
        ([ModelState.COLD, ModelState.LOADING], ModelState.LOADING),
        ([ModelState.FAILED, ModelState.FAILED], ModelState.FAILED),
    ],
)
def test_the_readiest_state_is_the_pools(states: Sequence[ModelState], merged: ModelState) -> None:
    pool = Pool([EchoBackend("m", replica=state.name, state=state) for state in states])
    assert pool.status().state is merged
    assert [replica.state for replica in pool.status().replicas] == list(states)


def test_replicas_of_different_versions_are_never_mistaken_for_one() -> None:
    old, new = EchoBackend("m", version="1", context_length=10), EchoBackend("m", version="2", context_length=8)
    pool = Pool([new, old])
    assert (pool.status().version, pool.status().context_length) == ("1+2", 8)
    old.state = ModelState.FAILED
    assert pool.status().version == "2"
    old.version, old.state = "2", ModelState.WARM
    assert pool.status().version == "2"


async def test_loading_succeeds_when_one_replica_does() -> None:
    backends = replicas(2)
    backends[0].load_error = ModelFailed("no")
    await Pool(backends).load()
    backends[1].load_error = ModelFailed("neither")
    with pytest.raises(ModelFailed, match="no"):
        await Pool(backends).load()


async def test_starting_unloading_and_stopping_reach_every_replica() -> None:
    backends = replicas(2)
    pool = Pool(backends)
    await pool.start()
    await pool.unload(5)
    await pool.stop()
    assert all(backend.started and backend.unloads == [5] and backend.stopped for backend in backends)


async def test_counting_tokens_asks_a_replica() -> None:
    assert (await Pool(replicas(2)).count_tokens(CALL)).prompt_tokens == 3


def test_a_pool_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Pool([])


async def test_a_reload_changes_the_balance_and_reaches_every_replica() -> None:
    first, second = replicas(2)
    pool = Pool([first, second], "least_outstanding")
    config = RemoteConfig(id="m", type="remote", base_urls=("http://a:1",), balance="round_robin")
    pool.adopt(config)
    assert "round_robin" in repr(pool)
    assert (first.adopted, second.adopted) == ([config], [config])
