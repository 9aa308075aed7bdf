"""A shadow's copy is made once, and decides nothing for callers' calls."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from polyroute.backends.echo import Script
from polyroute.core.errors import Overloaded, PeerFailed, PeerUnreachable, PolyrouteError
from tests.unit.backends.pool.pools import CALL, World, answered, replicas

COPY = replace(CALL, copy=True)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("error", [PeerUnreachable("gone"), PeerFailed("bad"), Overloaded("full", retry_after_s=60)])
async def test_a_copy_that_fails_is_not_tried_again_and_opens_no_breaker(world: World, error: PolyrouteError) -> None:
    backends = replicas(2)
    pool = world.pool(*backends, breaker={"failures": 1})
    for backend in backends:
        backend.script = Script(error=error)
    for _ in range(10):
        with pytest.raises(type(error)) as caught:
            await answered(pool, COPY)
        assert len(caught.value.attempts) == 1
    assert sum(len(backend.calls) for backend in backends) == 10
    assert {replica.breaker for replica in pool.status().replicas} == {"closed"}
    for backend in backends:
        backend.script = Script()
    await answered(pool, CALL)


async def test_a_copy_does_not_try_whether_a_replica_is_well_again(world: World) -> None:
    ill, well = replicas(2)
    pool = world.pool(ill, well, breaker={"failures": 1, "open": 1})
    ill.script = Script(error=PeerUnreachable("gone"))
    while not any(replica.breaker == "open" for replica in pool.status().replicas):
        await answered(pool, CALL)
    world.now += 2
    ill.script = Script()
    before = len(ill.calls)
    for _ in range(5):
        await answered(pool, COPY)
    assert len(ill.calls) == before
    await answered(pool, CALL)
    assert len(ill.calls) == before + 1
