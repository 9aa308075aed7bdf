"""Each replica's attempts are counted once, by how they ended and how long they took; copies are not."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.pool import Pool
from polyroute.core.backend import AttemptCounts
from polyroute.core.errors import PeerFailed
from polyroute.core.telemetry import REPLICA_FIRST_TOKEN
from tests.unit.backends.pool.pools import CALL, World, answered, opened, replicas


@pytest.fixture
def world() -> World:
    return World()


def counts(pool: Pool, place: int = 0) -> AttemptCounts:
    found = pool.status().replicas[place].attempts
    assert found is not None
    return found


async def test_a_whole_answer_and_how_long_it_took_to_begin_and_to_end(world: World) -> None:
    slow = Script(pause=lambda place: world.sleep(0.25 if place else 2.0))
    pool = world.pool(*replicas(1, slow))
    await answered(pool)
    found = counts(pool)
    assert found.outcomes == {"ok": 1}
    assert found.first_s == pytest.approx(2.0)
    assert found.ended_s == pytest.approx(world.now - 1000.0)
    assert found.ended_s > found.first_s
    assert sum(found.first_sizes) == found.first_sizes[REPLICA_FIRST_TOKEN.buckets.index(2.5)] == 1


async def test_a_failure_belongs_to_the_replica_that_failed(world: World) -> None:
    ill, well = EchoBackend("m", replica="ill", script=Script(error=PeerFailed("bad"))), EchoBackend("m", replica="w")
    pool = world.pool(ill, well, balance="round_robin", breaker="off")
    for _ in range(4):
        await answered(pool)
    assert counts(pool, 0).outcomes == {"PEER_FAILED": len(ill.calls)}
    assert sum(counts(pool, 0).first_sizes) == 0
    assert counts(pool, 1).outcomes == {"ok": 4}


async def test_an_answer_that_breaks_off_is_no_whole_one(world: World) -> None:
    pool = world.pool(*replicas(1, Script(error=PeerFailed("bad"), error_after=1)))
    with pytest.raises(PeerFailed):
        await answered(pool)
    assert counts(pool).outcomes == {"PEER_FAILED": 1}
    assert sum(counts(pool).first_sizes) == 1


async def test_a_caller_that_leaves_is_told_apart(world: World) -> None:
    pool = world.pool(*replicas(1))
    async with aclosing(opened(pool)) as events:
        await anext(events)
        assert counts(pool).outcomes == {}
    assert counts(pool).outcomes == {"CANCELLED": 1}


async def test_the_slower_of_two_is_cancelled(world: World) -> None:
    backends = replicas(2)
    for backend in backends:
        backend.script = lambda _call: (
            Script(gate=asyncio.Event()) if len(backends[0].calls) == len(backends[1].calls) else Script()
        )
    pool = world.pool(*backends, hedge={"after": "1ms"})
    await answered(pool)
    found = [counts(pool, place).outcomes for place in (0, 1)]
    assert sorted(found, key=str) == [{"CANCELLED": 1}, {"ok": 1}]


async def test_copies_are_left_out(world: World) -> None:
    pool = world.pool(*replicas(1))
    await answered(pool, replace(CALL, copy=True))
    assert counts(pool).outcomes == {}
    assert sum(counts(pool).first_sizes) == counts(pool).ended_s == 0
