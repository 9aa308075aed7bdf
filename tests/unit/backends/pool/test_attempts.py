"""A call whose replica fails before it begins to answer is answered by another one, within limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import nullcontext, suppress

import pytest
from msgspec.structs import replace

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.pool import Pool
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.errors import (
    FirstTokenTimeout,
    InvalidArgument,
    ModelLoading,
    NoReplica,
    Overloaded,
    PeerFailed,
    PeerUnreachable,
    PolyrouteError,
    Unavailable,
    Unsupported,
    WorkerDied,
)
from polyroute.core.event import Event, Route, Started
from tests.unit.backends.pool.pools import CALL, World, answered, in_flight, replicas, used

ILL = [PeerUnreachable("`r` is gone"), PeerFailed("`r` is bad"), Unavailable("`r` says 503")]


@pytest.fixture
def world() -> World:
    return World()


def fails(backend: EchoBackend, error: Exception) -> None:
    backend.script = Script(error=error)


def hangs() -> Script:
    return Script(gate=asyncio.Event())


def pressed(world: World, left_s: float) -> Call:
    """A call with a minute left; by the pool's clock, with `left_s` seconds."""
    deadline = time.monotonic() + 60
    world.now = deadline - left_s
    return replace(CALL, deadline=deadline)


async def outcome(pool: Pool, call: Call) -> str:
    """The replica that answered, or the reason why none did."""
    try:
        return (await answered(pool, call)).replica
    except PolyrouteError as error:
        return error.reason


def asked(*backends: EchoBackend) -> int:
    return sum(len(backend.calls) for backend in backends)


@pytest.mark.parametrize("error", [*ILL, Overloaded("`r` is full"), ModelLoading("soon")], ids=lambda e: e.reason)
async def test_another_replica_answers_and_the_caller_notices_nothing(world: World, error: PolyrouteError) -> None:
    ill, well = replicas(2)
    fails(ill, error)
    pool = world.pool(ill, well)
    routes = [await answered(pool) for _ in range(40)]
    assert {route.replica for route in routes} == {"r1"}
    assert not world.slept
    retried = next(route for route in routes if route.attempts)
    assert [(a.replica, a.reason, a.message) for a in retried.attempts] == [("r0", error.reason, error.message)]
    assert f"`r0` failed: {error.reason}" in retried.reasons
    assert set(world.retries) == {"answered"}
    assert in_flight(pool) == [0, 0]


@pytest.mark.parametrize("error", [InvalidArgument("prompt", "too long"), Unsupported("top_k", "not here")])
async def test_what_one_refuses_all_refuse(world: World, error: PolyrouteError) -> None:
    backends = replicas(2, Script(error=error))
    pool = world.pool(*backends)
    for calls in range(1, 30):
        with pytest.raises(type(error)):
            await used(pool, 1)
        assert asked(*backends) == calls
    assert [replica.breaker for replica in pool.status().replicas] == ["closed", "closed"]


async def test_a_bug_of_ours_is_not_tried_again(world: World) -> None:
    backends = replicas(2, Script(error=ZeroDivisionError()))
    pool = world.pool(*backends)
    with pytest.raises(ZeroDivisionError):
        await used(pool, 1)
    assert asked(*backends) == 1
    assert in_flight(pool) == [0, 0]


async def test_the_last_error_tells_every_attempt(world: World) -> None:
    backends = replicas(3)
    for backend, error in zip(backends, ILL, strict=True):
        fails(backend, error)
    with pytest.raises(PolyrouteError) as failed:
        await used(world.pool(*backends), 1)
    assert sorted((a.replica, a.reason) for a in failed.value.attempts) == [
        ("r0", "PEER_UNREACHABLE"),
        ("r1", "PEER_FAILED"),
        ("r2", "UNAVAILABLE"),
    ]
    assert failed.value.attempts[-1].reason == failed.value.reason
    assert world.retries == ["failed", "failed"]


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_so_many_retries_and_no_more(world: World, retries: int) -> None:
    backends = replicas(5, Script(error=PeerFailed("bad")))
    with pytest.raises(PeerFailed):
        await used(world.pool(*backends, retries=retries), 1)
    assert asked(*backends) == retries + 1


async def test_the_only_replica_is_asked_again_after_a_wait_that_grows(world: World) -> None:
    (only,) = replicas(1, Script(error=PeerFailed("bad")))
    pool = world.pool(only, retries=4, breaker=False)
    waits = []
    for _ in range(200):
        with pytest.raises(PeerFailed):
            await used(pool, 1)
        waits.append(tuple(world.slept))
        world.slept.clear()
        world.now += 100
    assert asked(only) == 1000
    for place, longest in enumerate((0.1, 0.2, 0.4, 0.8)):  # full jitter: all of the range
        at = [wait[place] for wait in waits]
        assert 0 <= min(at) < 0.1 * longest
        assert 0.9 * longest < max(at) <= longest


async def test_the_only_replica_that_recovers_answers(world: World) -> None:
    (only,) = replicas(1)
    only.script = lambda _call: Script(error=PeerFailed("bad")) if len(only.calls) < 2 else Script()
    assert (await answered(world.pool(only))).replica == "r0"
    assert len(world.slept) == 2


@pytest.mark.parametrize("error", [ModelLoading("soon", retry_after_s=1), WorkerDied("died")])
async def test_what_does_not_pass_in_a_moment_is_not_asked_again(world: World, error: PolyrouteError) -> None:
    (only,) = replicas(1, Script(error=error))
    with pytest.raises(type(error)):
        await used(world.pool(only), 1)
    assert asked(only) == 1


async def test_a_call_that_killed_a_worker_goes_to_no_other(world: World) -> None:
    backends = replicas(3, Script(error=WorkerDied("died")))
    with pytest.raises(WorkerDied):
        await used(world.pool(*backends), 1)
    assert asked(*backends) == 1


async def test_a_call_is_repeated_as_retries_and_their_budget_have_it(world: World) -> None:
    assert not world.pool(*replicas(1), retries=0).may_repeat()
    pool = world.pool(*replicas(1), retries=1, retry_budget={"share": 0, "min_per_second": 0.1})
    assert [pool.may_repeat() for _ in range(3)] == [True, False, False]
    assert world.retries == ["no_budget"] * 2


async def test_an_outage_gets_few_retries(world: World) -> None:
    backends = replicas(2, Script(error=PeerFailed("bad")))
    pool = world.pool(*backends, breaker=False, retry_budget={"share": 0.2, "min_per_second": 0.1})
    for _ in range(100):
        with pytest.raises(PeerFailed):
            await used(pool, 1)
    assert 120 <= asked(*backends) <= 122
    assert world.retries.count("no_budget") > 50


async def test_a_retry_that_cannot_finish_before_the_deadline_is_not_tried(world: World) -> None:
    ill, well = replicas(2)
    fails(ill, PeerFailed("bad"))
    pool = world.pool(ill, well, breaker=False, balance="round_robin")
    for _ in range(30):
        pool._attempts._first_tokens.add(2.0)  # what the model takes, as far as is known
    for left_s, answered_of_two in ((3.0, 2), (1.5, 1)):
        outcomes = [await outcome(pool, pressed(world, left_s)) for _ in range(2)]
        assert outcomes.count("r1") == answered_of_two
        assert outcomes.count("PEER_FAILED") == 2 - answered_of_two


async def test_retry_after_spares_a_replica_while_others_can_be_asked(world: World) -> None:
    busy, free = replicas(2)
    fails(busy, Overloaded("full", retry_after_s=7))
    pool = world.pool(busy, free)
    while not asked(busy):
        await answered(pool)
    busy.script = Script()
    assert await used(pool, 20) == ["r1"] * 20
    shown = pool.status().replicas[0]
    assert (shown.state, shown.breaker, shown.detail) == (
        ModelState.WARM,
        "closed",
        "asked to be spared for 7.0 s more",
    )
    free.state = ModelState.FAILED
    assert await used(pool, 1) == ["r0"]  # rather than none
    free.state = ModelState.WARM
    world.now += 7
    assert "r0" in await used(pool, 20)


@pytest.mark.parametrize(
    ("state", "away_s", "over"),
    [(ModelState.FAILED, 5, True), (ModelState.FAILED, 0.5, False), (ModelState.LOADING, 0, True)],
)
async def test_one_that_was_away_is_not_spared_for_what_it_asked_before(
    world: World, state: ModelState, away_s: float, over: bool
) -> None:
    busy, free = replicas(2)
    fails(busy, Overloaded("full", retry_after_s=60))
    pool = world.pool(busy, free)
    while not asked(busy):
        await answered(pool)
    busy.state = state
    await answered(pool)
    world.now += away_s
    busy.state = ModelState.WARM
    await answered(pool)
    assert ("asked to be spared" not in pool.status().replicas[0].detail) is over


async def test_what_a_replica_asks_for_is_believed_for_five_minutes(world: World) -> None:
    busy, free = replicas(2)
    fails(busy, Overloaded("full", retry_after_s=86_400))
    pool = world.pool(busy, free)
    while not asked(busy):
        await answered(pool)
    assert pool.status().replicas[0].detail == "asked to be spared for 300.0 s more"
    world.now += 300
    busy.script = Script()
    assert "r0" in await used(pool, 20)


@pytest.mark.parametrize(("spare_s", "answers"), [(1.5, True), (30.0, False)])
async def test_the_only_replicas_retry_after_is_waited_for_where_it_is_short(
    world: World, spare_s: float, answers: bool
) -> None:
    (only,) = replicas(1)
    only.script = lambda _call: Script() if only.calls else Script(error=Overloaded("full", retry_after_s=spare_s))
    if answers:
        await answered(world.pool(only))
        assert world.slept == [spare_s]
    else:
        with pytest.raises(Overloaded) as refused:
            await answered(world.pool(only))
        assert (refused.value.retry_after_s, world.slept) == (spare_s, [])


async def test_429s_do_not_open_a_breaker(world: World) -> None:
    backends = replicas(1, Script(error=Overloaded("full")))
    pool = world.pool(*backends, retries=0)
    for _ in range(50):
        with pytest.raises(Overloaded):
            await used(pool, 1)
    assert pool.status().replicas[0].breaker == "closed"


async def test_a_worker_that_died_is_no_illness_of_the_one_that_replaces_it(world: World) -> None:
    (only,) = replicas(1, Script(error=WorkerDied("died")))
    pool = world.pool(only)
    for _ in range(20):  # as many calls as it was answering
        with pytest.raises(WorkerDied):
            await used(pool, 1)
    only.script = Script()
    assert pool.status().replicas[0].breaker == "closed"
    assert await used(pool, 1) == ["r0"]


@pytest.mark.parametrize("error", ILL, ids=lambda e: e.reason)
async def test_an_ill_replica_is_left_alone_then_tried_and_comes_back_slowly(
    world: World, error: PolyrouteError
) -> None:
    ill, well = replicas(2)
    fails(ill, error)
    pool = world.pool(ill, well, slow_start=10, balance="round_robin")
    await used(pool, 30)
    assert asked(ill) == 5
    shown = pool.status().replicas[0]
    assert (shown.state, shown.breaker, shown.ejections) == (ModelState.FAILED, "open", 1)
    assert f"5 failures in a row, the last: {error.reason}" in shown.detail
    world.now += 1
    assert pool.status().replicas[0].breaker == "half_open"
    route = await answered(pool)  # tries it, and is answered all the same
    assert (route.replica, route.attempts[0].replica, asked(ill)) == ("r1", "r0", 6)
    ill.script = Script()
    world.now += 2
    route = await answered(pool)
    assert route.replica == "r0"
    assert "`r0` is tried, whether it is well again" in route.reasons
    weights = []
    for _ in range(11):
        weights.append(round(pool.status().replicas[0].weight, 2))
        world.now += 1
    assert weights == [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert pool.status().replicas[0].detail == ""


async def test_a_trial_is_one_call_at_a_time(world: World) -> None:
    ill, well = replicas(2)
    fails(ill, PeerFailed("bad"))
    pool = world.pool(ill, well, balance="round_robin")
    await used(pool, 20)
    world.now += 1
    begun = asyncio.Event()

    async def pause(_place: int) -> None:
        begun.set()

    before = asked(ill)
    ill.script = Script(gate=asyncio.Event(), pause=pause)
    trial = asyncio.create_task(answered(pool))
    await begun.wait()
    assert await used(pool, 10) == ["r1"] * 10
    assert asked(ill) == before + 1
    trial.cancel()
    await asyncio.gather(trial, return_exceptions=True)
    ill.script = Script()
    assert await used(pool, 1) == ["r0"]  # the place was freed, and nothing held against it


async def test_with_every_breaker_open_a_call_is_refused_at_once(world: World) -> None:
    backends = replicas(2, Script(error=PeerFailed("`r` answered 500")))
    pool = world.pool(*backends, breaker={"open": "4s"})
    for _ in range(10):
        with pytest.raises(PolyrouteError):
            await used(pool, 1)
    before = asked(*backends)
    with pytest.raises(NoReplica) as refused:
        await used(pool, 1)
    assert asked(*backends) == before
    assert 2 <= (refused.value.retry_after_s or 0) <= 4
    assert "`m`: no healthy replica, 0 of 2; `r" in refused.value.message
    assert "PEER_FAILED: `r` answered 500" in refused.value.message
    assert pool.status().state is ModelState.FAILED
    world.now += 4
    for backend in backends:
        backend.script = Script()
    await answered(pool)
    assert pool.status().state is ModelState.WARM


async def test_without_a_breaker_it_is_asked_for_ever(world: World) -> None:
    (only,) = replicas(1, Script(error=PeerFailed("bad")))
    pool = world.pool(only, breaker=False, retries=0)
    for _ in range(50):
        with pytest.raises(PeerFailed):
            await used(pool, 1)
    assert asked(only) == 50


async def test_answers_that_are_cut_off_open_a_breaker_too(world: World) -> None:
    pool = world.pool(*replicas(1, Script(error=PeerFailed("cut"), error_after=2)))
    for _ in range(5):
        assert pool.status().replicas[0].breaker == "closed"
        with pytest.raises(PeerFailed):
            await used(pool, 1)
    assert pool.status().replicas[0].breaker == "open"


async def test_a_caller_that_leaves_says_nothing_for_a_replica(world: World) -> None:
    (only,) = replicas(1)
    pool = world.pool(only, retries=0)
    for script in [*[Script(error=PeerFailed("bad"))] * 4, hangs(), Script(error=PeerFailed("bad"))]:
        only.script = script
        task = asyncio.create_task(used(pool, 1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert pool.status().replicas[0].breaker == "open"


async def test_a_caller_that_leaves_says_nothing_against_a_replica(world: World) -> None:
    pool = world.pool(*replicas(1, hangs()))
    for _ in range(20):
        task = asyncio.create_task(used(pool, 1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert pool.status().replicas[0].breaker == "closed"


@pytest.mark.parametrize(
    ("error", "state"),
    [(PeerUnreachable("gone"), ModelState.FAILED), (PeerFailed("ill"), ModelState.LOADING)],
)
async def test_a_replica_that_was_away_and_is_back_is_tried_before_its_time(
    world: World, error: PolyrouteError, state: ModelState
) -> None:
    ill, well = replicas(2)
    fails(ill, error)
    pool = world.pool(ill, well, breaker={"open": "60s", "max_open": "60s"}, balance="round_robin")
    await used(pool, 12)
    ill.state = state  # as the probes of a peer have it, or the supervisor of a worker
    assert await used(pool, 2) == ["r1"] * 2
    ill.state, ill.script = ModelState.WARM, Script()
    assert await used(pool, 1) == ["r0"]
    assert pool.status().replicas[0].breaker == "closed"


async def test_one_lost_connection_starts_nothing_slowly(world: World) -> None:
    backends = replicas(2)
    pool = world.pool(*backends)
    for lost_s, weight in ((0.5, 1), (5.0, 0.1)):
        backends[0].state = ModelState.FAILED
        await used(pool, 1)
        world.now += lost_s
        backends[0].state = ModelState.WARM
        await used(pool, 1)
        assert pool.status().replicas[0].weight == weight


async def test_a_newcomer_starts_slowly_beside_others(world: World) -> None:
    pool = world.pool(*replicas(1))
    pool.add(EchoBackend("m", replica="new"))
    assert [replica.weight for replica in pool.status().replicas] == [1, 0.1]
    world.now += 5
    assert [replica.weight for replica in pool.status().replicas] == [1, 0.5]
    assert "starts slowly, weight 0.50" in pool.status().replicas[1].detail


async def test_each_attempt_has_the_first_token_timeout_for_itself(world: World) -> None:
    hanging, well = replicas(2)
    hanging.script = hangs()
    pool = world.pool(hanging, well, first_token_timeout=0.01, balance="round_robin")
    routes = [await answered(pool) for _ in range(2)]
    assert [route.replica for route in routes] == ["r1", "r1"]
    (failed,) = next(route.attempts for route in routes if route.attempts)
    assert (failed.reason, failed.message) == ("FIRST_TOKEN_TIMEOUT", "`r0`: no first token within 0.01 s")
    assert hanging.closed_early == 1


async def test_the_only_replica_that_hangs_is_not_asked_again(world: World) -> None:
    (only,) = replicas(1, hangs())
    with pytest.raises(FirstTokenTimeout, match=r"`r0`: no first token within 0.01 s"):
        await used(world.pool(only, first_token_timeout=0.01), 1)
    assert asked(only) == 1


@pytest.mark.parametrize("answers", [False, True])
async def test_a_replica_that_ends_otherwise_as_its_time_is_up_leaves_nothing_on_the_task(
    world: World, answers: bool
) -> None:
    """Else a deadline that passes later would be taken for a caller that leaves."""

    class Stubborn(EchoBackend):
        async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            if not answers:
                raise PeerFailed("it broke as it was left")
            yield Started(Route())

    pool = world.pool(Stubborn("m", replica="r0"), first_token_timeout=0.01, retries=0)
    with nullcontext() if answers else pytest.raises(PeerFailed):
        await used(pool, 1)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_time_between_tokens_is_not_the_first_tokens(world: World) -> None:
    gate = asyncio.Event()
    (only,) = replicas(1, Script(gate=gate, gate_after=2))
    pool = world.pool(only, first_token_timeout=0.01)
    asyncio.get_running_loop().call_later(0.05, gate.set)
    assert (await answered(pool)).replica == "r0"


async def test_a_run_without_a_deadline_leaves_time_for_another_replica_too(world: World) -> None:
    """A run that calls share has none of its own, but they wait only so long for its beginning."""
    hanging, well = replicas(2)
    hanging.script = hangs()
    pool = world.pool(hanging, well, slow_start="off", balance="round_robin")
    for _ in range(2):
        shared = replace(CALL, start_by=pressed(world, 0.02).deadline)
        route = await answered(pool, shared)
        assert route.replica == "r1"
        assert all("within 0.01 s" in attempt.message for attempt in route.attempts)
    assert asked(hanging) > 0


async def test_a_share_of_the_deadline_is_held_against_a_replica_only_where_it_was_enough(world: World) -> None:
    hanging, well = replicas(2)
    hanging.script = hangs()
    pool = world.pool(hanging, well, breaker={"failures": 1}, slow_start="off", balance="round_robin")

    for _ in range(2):
        assert (await answered(pool, pressed(world, 0.02))).replica == "r1"
    assert pool.status().replicas[0].breaker == "closed"
    fails(hanging, PeerUnreachable("gone"))
    for _ in range(2):
        await answered(pool, pressed(world, 0.02))
    assert pool.status().replicas[0].breaker == "open"  # what is no matter of time counts all the same
    world.now += 60
    hanging.script = Script()
    assert "r0" in await used(pool, 2)
    hanging.script = hangs()
    for _ in range(30):
        pool._attempts._first_tokens.add(0.001)
    for _ in range(2):
        assert (await answered(pool, pressed(world, 0.02))).replica == "r1"
    assert pool.status().replicas[0].breaker == "open"
