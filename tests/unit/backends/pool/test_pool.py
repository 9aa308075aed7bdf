"""A pool keeps its counts whatever happens to a stream, takes replicas in and lets them go, and shows them as one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import fields
from typing import Any

import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.pool import Pool
from polyroute.backends.pool.balance import BalanceName, Candidate, Choice
from polyroute.core.backend import Facts, ModelState
from polyroute.core.call import Call
from polyroute.core.config import ModelConfig, RemoteConfig
from polyroute.core.errors import Draining, ModelFailed, ModelLoading, NoReplica, PeerFailed
from polyroute.core.request import Request
from tests.unit.backends.pool.pools import CALL, World, answered, in_flight, opened, replicas, used

BALANCES: list[BalanceName] = ["least_outstanding", "round_robin", "prefix"]


@pytest.fixture
def world() -> World:
    return World()


async def test_ties_are_not_always_the_first_replicas(world: World) -> None:
    assert set(await used(world.pool(*replicas(2)), 20)) == {"r0", "r1"}


async def test_round_robin_goes_round(world: World) -> None:
    counts = Counter(await used(world.pool(*replicas(3), balance="round_robin"), 9))
    assert counts == {"r0": 3, "r1": 3, "r2": 3}


async def test_the_fewest_outstanding_gets_the_next_call(world: World) -> None:
    pool = world.pool(*replicas(2))
    streams = [opened(pool) for _ in range(6)]
    for stream in streams:
        await anext(stream)
    assert in_flight(pool) == [3, 3]
    await streams[1].aclose()
    freed = in_flight(pool).index(2)
    async with aclosing(opened(pool)) as another:
        await anext(another)
        assert in_flight(pool) == [3, 3]
    assert in_flight(pool)[freed] == 2
    for stream in streams:
        await stream.aclose()
    assert in_flight(pool) == [0, 0]


async def test_a_stream_never_begun_is_not_in_flight(world: World) -> None:
    pool = world.pool(*replicas(1))
    stream = opened(pool)
    assert in_flight(pool) == [0]
    await stream.aclose()
    assert in_flight(pool) == [0]


async def test_a_call_waiting_for_its_first_token_is_in_flight_and_a_cancel_ends_that(world: World) -> None:
    begun = asyncio.Event()

    async def pause(_place: int) -> None:
        begun.set()

    backends = replicas(1, Script(gate=asyncio.Event(), pause=pause))
    pool = world.pool(*backends)
    task = asyncio.create_task(used(pool, 1))
    await begun.wait()
    assert in_flight(pool) == [1]
    pool.status()  # asking how it is zeroes no count
    assert in_flight(pool) == [1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert in_flight(pool) == [0]
    assert (backends[0].open, backends[0].closed_early) == (0, 1)


async def test_leaving_early_closes_the_replicas_stream(world: World) -> None:
    backends = replicas(1)
    pool = world.pool(*backends)
    async with aclosing(opened(pool)) as events:
        await anext(events)
        assert backends[0].open == 1
        assert in_flight(pool) == [1]
    assert (backends[0].open, backends[0].closed_early) == (0, 1)
    assert in_flight(pool) == [0]


async def test_once_it_has_begun_to_answer_nothing_is_tried_again(world: World) -> None:
    backends = replicas(2, Script(error=PeerFailed("cut"), error_after=2))
    pool = world.pool(*backends)
    with pytest.raises(PeerFailed):
        await used(pool, 1)
    assert sum(len(backend.calls) for backend in backends) == 1
    assert in_flight(pool) == [0, 0]


@pytest.mark.parametrize("balance", BALANCES)
async def test_failed_replicas_are_skipped_while_a_better_one_exists(world: World, balance: BalanceName) -> None:
    backends = replicas(3)
    pool = world.pool(*backends, balance=balance)
    backends[0].state = backends[2].state = ModelState.FAILED
    assert await used(pool, 4) == ["r1"] * 4
    backends[1].state = ModelState.LOADING
    assert await used(pool, 2) == ["r1"] * 2
    backends[2].state = ModelState.WARM
    assert await used(pool, 2) == ["r2"] * 2


async def test_with_every_replica_failed_they_are_tried_all_the_same(world: World) -> None:
    backends = replicas(2)
    for backend in backends:
        backend.state = ModelState.FAILED
    with pytest.raises(ModelFailed):
        await used(world.pool(*backends), 1)
    assert sum(len(backend.calls) for backend in backends) == 2


@pytest.mark.parametrize(
    ("states", "merged"),
    [
        ([ModelState.FAILED, ModelState.WARM], ModelState.WARM),
        ([ModelState.FAILED, ModelState.LOADING], ModelState.LOADING),
        ([ModelState.COLD, ModelState.LOADING], ModelState.LOADING),
        ([ModelState.FAILED, ModelState.COLD], ModelState.COLD),
    ],
)
def test_the_readiest_state_is_the_pools(world: World, states: Sequence[ModelState], merged: ModelState) -> None:
    pool = world.pool(*(EchoBackend("m", replica=state.name, state=state) for state in states))
    assert pool.status().state is merged
    assert [replica.state for replica in pool.status().replicas] == list(states)


@pytest.mark.parametrize("last", [*ModelState, None])
def test_the_facts_are_those_of_the_status(world: World, last: ModelState | None) -> None:
    backends = [
        EchoBackend("m", replica=f"r{place}", version=f"{place}", state=s) for place, s in enumerate(ModelState)
    ]
    pool = world.pool(*(backend for backend in backends if last is not None and backend.state.value <= last.value))
    for place, backend in enumerate(backends):
        backend.ready_since = 100.0 - place
        facts, status = pool.facts(), pool.status()
        assert facts == Facts(**{f.name: getattr(status, f.name) for f in fields(Facts)})


def frozen(pool: Pool) -> list[dict[str, Any]]:
    told = [pool._replicas, pool._leaving]
    return [
        {**vars(replica), "breaker": dict(vars(replica.breaker)), "outcomes": dict(vars(replica.breaker._outcomes))}
        for replica in [replica for several in told for replica in several]
    ]


async def test_asking_how_it_is_changes_nothing_for_threads_ask_too(world: World) -> None:
    """Amid every change that time and backends make by themselves."""
    ill, lost, slow = backends = replicas(3)
    pool = world.pool(*backends, retries=0, breaker={"failures": 1, "open": "30s"}, slow_start=10)
    ill.script = Script(error=PeerFailed("bad"))
    while pool.status().replicas[0].breaker == "closed":
        with suppress(PeerFailed):
            await answered(pool)
    slow.state = ModelState.FAILED
    pool.preview(CALL)
    world.now += 5
    slow.state = ModelState.WARM
    pool.preview(CALL)
    lost.state = ModelState.FAILED
    slow.ready_since = 7.0
    world.now += 1000  # the breaker's time is over, the slow start's too
    before = frozen(pool)
    shown = pool.status()
    pool.facts()
    assert frozen(pool) == before
    assert [replica.breaker for replica in shown.replicas] == ["half_open", "closed", "closed"]
    assert [replica.weight for replica in shown.replicas] == [1, 1, 1]


async def test_one_that_went_and_came_back_while_no_call_did_is_seen_by_the_next(world: World) -> None:
    first, second = replicas(2)
    pool = world.pool(first, second, balance="prefix")
    prompt = Call(Request(model="m", prompt="once upon a time " * 100), "r1")
    home = (await answered(pool, prompt)).replica
    (first if home == "r0" else second).ready_since = 5.0
    assert "has had the first" not in pool.preview(prompt).reason


def test_replicas_of_different_versions_are_never_mistaken_for_one(world: World) -> None:
    old = EchoBackend("m", replica="old", version="1", context_length=10)
    new = EchoBackend("m", replica="new", version="2", context_length=8)
    pool = world.pool(new, old)
    assert (pool.status().version, pool.status().context_length) == ("1+2", 8)
    old.state = ModelState.FAILED
    assert pool.status().version == "2"
    old.version, old.state = "2", ModelState.WARM
    assert pool.status().version == "2"


async def test_loading_succeeds_when_one_replica_does(world: World) -> None:
    backends = replicas(2)
    backends[0].load_error = ModelFailed("no")
    await world.pool(*backends).load()
    backends[1].load_error = ModelFailed("neither")
    with pytest.raises(ModelFailed, match="no"):
        await world.pool(*backends).load()


async def test_starting_and_stopping_reach_every_replica(world: World) -> None:
    backends = replicas(2)
    pool = world.pool(*backends)
    await pool.start()
    await pool.stop()
    assert all(backend.started and backend.stopped for backend in backends)


async def test_counting_tokens_asks_a_replica(world: World) -> None:
    assert (await world.pool(*replicas(2)).count_tokens(CALL)).prompt_tokens == 3


async def test_a_pool_of_nothing_says_so_until_a_replica_comes(world: World) -> None:
    pool = world.pool()
    for refused in (used(pool, 1), pool.load(), pool.count_tokens(CALL)):
        with pytest.raises(NoReplica, match="`m`: has no replica yet"):
            await refused
    assert (pool.status().state, pool.status().detail) == (ModelState.LOADING, "no replica yet")
    pool.add(EchoBackend("m"))
    assert await used(pool, 1) == ["echo"]


def test_two_replicas_of_one_name_are_refused(world: World) -> None:
    pool = world.pool(*replicas(1))
    with pytest.raises(ValueError, match="`m` has a replica `r0` already"):
        pool.add(replicas(1)[0])


async def test_one_that_leaves_gets_no_more_calls_and_is_stopped_once_its_own_have_ended(world: World) -> None:
    backends = replicas(2)
    pool = world.pool(*backends)
    streams = [opened(pool), opened(pool)]
    for stream in streams:
        await anext(stream)
    leaving = asyncio.create_task(pool.remove(backends[0], 60))
    await asyncio.sleep(0)
    assert await used(pool, 4) == ["r1"] * 4
    shown = {replica.name: replica for replica in pool.status().replicas}
    assert (shown["r0"].state, shown["r0"].in_flight) == (ModelState.DRAINING, 1)
    assert not backends[0].stopped
    for stream in streams:
        assert [event async for event in stream]
    await leaving
    assert backends[0].stopped
    assert [replica.name for replica in pool.status().replicas] == ["r1"]
    await pool.remove(backends[0], 0)  # gone already


async def test_one_whose_stop_fails_has_left_all_the_same(world: World) -> None:
    class Stuck(EchoBackend):
        async def stop(self) -> None:
            raise PeerFailed("cannot stop")

    stuck = Stuck("m")
    pool = world.pool(stuck, EchoBackend("m", replica="other"))
    with pytest.raises(PeerFailed):
        await pool.remove(stuck, 0)
    assert [replica.name for replica in pool.status().replicas] == ["other"]


async def test_the_policy_forgets_one_that_leaves(world: World) -> None:
    class Forgetful:
        def __init__(self) -> None:
            self.forgotten: list[str] = []

        def choose(self, candidates: Sequence[Candidate], call: Call) -> Choice:
            return Choice(candidates[0].name, "")

        def forget(self, name: str) -> None:
            self.forgotten.append(name)

    backends = replicas(2)
    pool = world.pool(*backends)
    pool._balance = policy = Forgetful()
    await pool.remove(backends[0], 0)
    assert policy.forgotten == ["r0"]


async def test_one_that_leaves_without_grace_is_stopped_at_once(world: World) -> None:
    backends = replicas(2, Script(gate=asyncio.Event(), gate_after=1))
    pool = world.pool(*backends)
    streams = [opened(pool), opened(pool)]
    for stream in streams:
        await anext(stream)
    await pool.remove(backends[0], 0)
    assert backends[0].stopped
    assert in_flight(pool) == [1]
    for stream in streams:
        await stream.aclose()


async def test_stopping_stops_those_that_are_leaving_too(world: World) -> None:
    backends = replicas(1, Script(gate=asyncio.Event(), gate_after=1))
    pool = world.pool(*backends)
    async with aclosing(opened(pool)) as events:
        await anext(events)
        leaving = asyncio.create_task(pool.remove(backends[0], 60))
        await asyncio.sleep(0)
        await pool.stop()
        assert backends[0].stopped
    await leaving


class Finding:
    """A source that finds one replica, or says why it finds none."""

    def __init__(self, found: EchoBackend | None) -> None:
        self.problem = "" if found else "`peers.local` cannot be resolved: no such name"
        self.found = found
        self.stopped = False
        self.adopted: list[ModelConfig] = []

    async def start(self, pool: Pool) -> None:
        if self.found is not None:
            pool.add(self.found)

    async def settled(self) -> None:
        pass

    async def stop(self) -> None:
        self.stopped = True

    def adopt(self, config: ModelConfig) -> None:
        self.adopted.append(config)


@pytest.mark.parametrize("found", [EchoBackend("m"), None])
async def test_a_source_is_started_and_stopped_with_the_pool(world: World, found: EchoBackend | None) -> None:
    source = Finding(found)
    pool = Pool(world.pool()._config, sources=[source])
    await pool.start()
    if found is None:
        assert (pool.status().state, pool.status().detail) == (ModelState.FAILED, source.problem)
        with pytest.raises(NoReplica, match="cannot be resolved"):
            await pool.load()
    else:
        await pool.load()
        assert await used(pool, 1) == ["echo"]
    await pool.stop()
    assert source.stopped


@pytest.mark.parametrize("error", [ModelLoading("soon"), Draining("leaving")])
async def test_a_replica_on_its_way_is_no_ill_one(world: World, error: Exception) -> None:
    backends = replicas(1, Script(error=error))
    pool = world.pool(*backends)
    for _ in range(30):
        with pytest.raises(type(error)):
            await used(pool, 1)
    assert pool.status().replicas[0].breaker == "closed"
    assert len(backends[0].calls) == 30


async def test_a_repr_shows_how_everything_stands(world: World) -> None:
    pool = world.pool(*replicas(1))
    await answered(pool)
    assert repr(pool) == ("<Pool m least_outstanding of [<Replica r0 WARM breaker=closed weight=1.00 in_flight=0>]>")


def reloaded(**options: Any) -> RemoteConfig:
    return RemoteConfig.model_validate({"id": "m", "type": "remote", "base_url": "http://h:1", **options})


async def test_a_reload_reaches_every_replica_and_source(world: World) -> None:
    first, second = replicas(2)
    source = Finding(None)
    pool = Pool(world.pool()._config, [first, second], sources=[source])
    config = reloaded(balance="round_robin")
    pool.adopt(config)
    assert "round_robin" in repr(pool)
    assert (first.adopted, second.adopted, source.adopted) == ([config], [config], [config])


async def test_a_reload_changes_retries_for_calls_to_come_and_keeps_the_counts(world: World) -> None:
    gate = asyncio.Event()
    first, second = replicas(2, Script(gate=gate))
    pool = world.pool(first, second, retries=0)
    running = asyncio.create_task(answered(pool))
    await asyncio.sleep(0)
    busy, idle = (first, second) if first.open else (second, first)
    idle.script = Script(error=PeerFailed("bad"))
    with pytest.raises(PeerFailed):
        await answered(pool)
    pool.adopt(reloaded(retries=1, balance="round_robin"))
    busy.script = Script()
    assert set(await used(pool, 4)) == {busy.status().replicas[0].name}
    assert sorted(in_flight(pool)) == [0, 1]
    gate.set()
    assert (await running).replica == busy.status().replicas[0].name
    assert in_flight(pool) == [0, 0]


async def test_a_reload_may_close_breakers_for_good(world: World) -> None:
    pool = world.pool(*replicas(1, Script(error=PeerFailed("bad"))), retries=0, breaker={"failures": 2, "open": "30s"})
    for _ in range(2):
        with pytest.raises(PeerFailed):
            await answered(pool)
    pool.adopt(reloaded(retries=0, breaker={"failures": 3, "window": "5s"}))
    with pytest.raises(NoReplica):  # it was opened for so long
        await answered(pool)
    pool.adopt(reloaded(retries=0, breaker="off"))
    for _ in range(9):
        with pytest.raises(PeerFailed):
            await answered(pool)
    pool.adopt(reloaded(retries=0, breaker={"failures": 3}))
    for _ in range(3):
        with pytest.raises(PeerFailed):
            await answered(pool)
    assert pool.status().replicas[0].breaker == "open"


@pytest.mark.parametrize(
    ("state", "away_s", "forgotten"),
    [(ModelState.LOADING, 0.1, True), (ModelState.FAILED, 5.0, True), (ModelState.FAILED, 0.1, False)],
)
async def test_a_worker_that_was_replaced_has_no_prefix_any_more(
    world: World, state: ModelState, away_s: float, forgotten: bool
) -> None:
    """One that could not be reached for a moment has them still."""
    backends = replicas(2)
    pool = world.pool(*backends, balance="prefix")
    prompt = Call(Request(model="m", prompt="once upon a time " * 100), "r1")
    home = (await answered(pool, prompt)).replica
    backend = next(each for each in backends if each.status().replicas[0].name == home)
    assert "has had the first" in pool.preview(prompt).reason
    backend.state = state
    pool.preview(prompt)
    world.now += away_s
    backend.state = ModelState.WARM
    pool.preview(prompt)
    assert ("has had the first" in pool.preview(prompt).reason) is not forgotten


async def test_what_another_process_has_found_ill_is_left_alone(world: World) -> None:
    pool = world.pool(*replicas(2))
    pool.heed("r0", 30.0, "gone")
    pool.heed("of another time", 30.0, "gone")
    assert set(await used(pool, 10)) == {"r1"}
