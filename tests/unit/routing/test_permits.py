"""Permits: bounded, fair between callers, and never lost, however their holders leave."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from polyroute.core.errors import DeadlineExceeded, Overloaded
from polyroute.routing.adaptive import AdaptiveLimit
from polyroute.routing.permits import Permits
from tests.clock import Clock


async def settle() -> None:
    """Lets everything that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_as_many_as_there_are_are_given_at_once() -> None:
    permits = Permits("m", 2, 0, 60)
    first, second = await permits.acquire(), await permits.acquire()
    assert permits.in_flight == 2
    first.release()
    second.release()
    assert permits.in_flight == 0


async def test_a_second_release_does_nothing() -> None:
    permits = Permits("m", 2, 0, 60)
    first = await permits.acquire()
    await permits.acquire()
    first.release()
    first.release()
    assert permits.in_flight == 1


async def test_waiters_are_served_in_order() -> None:
    permits, order = Permits("m", 1, 10, 60), []

    async def caller(number: int) -> None:
        permit = await permits.acquire()
        order.append(number)
        permit.release()

    held = await permits.acquire()
    tasks = [asyncio.create_task(caller(i)) for i in range(5)]
    await settle()
    assert permits.queued == 5
    held.release()
    await asyncio.gather(*tasks)
    assert order == list(range(5))
    assert (permits.in_flight, permits.queued) == (0, 0)


async def test_who_comes_later_does_not_overtake_one_who_was_just_given_the_permit() -> None:
    permits = Permits("m", 1, 1, 60)
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await settle()
    held.release()
    late = asyncio.create_task(permits.acquire())
    permit = await waiting
    await settle()
    assert permits.queued == 1
    permit.release()
    (await late).release()
    assert permits.in_flight == 0


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    clock = Clock(100.0)
    permits = Permits("m", 1, 1, 60, clock=clock)
    for took in (0.0, 3.2):
        held = await permits.acquire()
        clock.now += took
        held.release()
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await settle()
    with pytest.raises(Overloaded, match="`m`: 1 waiting, limit 1") as refused:
        await permits.acquire()
    assert refused.value.retry_after_s == pytest.approx(3.2)  # two calls of 1.6 s
    assert refused.value.metadata == {"refusal": "queue_full"}
    waiting.cancel()
    held.release()


async def test_no_queue_at_all_is_said_as_such() -> None:
    permits = Permits("m", 1, 0, 60)
    held = await permits.acquire()
    with pytest.raises(Overloaded, match="`m`: 1 of 1 permits in use, and no queue"):
        await permits.acquire()
    held.release()


async def test_a_wait_beyond_the_queue_timeout_is_overload() -> None:
    permits = Permits("m", 1, 5, 0.01)
    held = await permits.acquire()
    with pytest.raises(Overloaded, match=r"`m`: no permit within 0.01 s, 1 of 1 in use"):
        await permits.acquire()
    assert permits.queued == 0
    held.release()


async def test_a_deadline_in_the_queue_is_a_deadline() -> None:
    permits = Permits("m", 1, 5, 60)
    held = await permits.acquire()
    with pytest.raises(DeadlineExceeded, match="in the queue") as late:
        await permits.acquire("", time.monotonic() + 0.01)
    assert late.value.metadata == {"refusal": "deadline"}
    with pytest.raises(DeadlineExceeded):
        await permits.acquire("", time.monotonic() - 1)
    assert permits.queued == 0
    held.release()


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    permits = Permits("m", 1, 5, 60)
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert permits.queued == 0
    held.release()
    assert permits.in_flight == 0


async def test_a_permit_given_to_one_who_is_cancelled_in_that_moment_goes_on() -> None:
    permits = Permits("m", 1, 5, 60)
    held = await permits.acquire()
    first, second = (asyncio.create_task(permits.acquire()) for _ in range(2))
    await settle()
    held.release()  # to the first, which has not run yet
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    (await second).release()
    assert (permits.in_flight, permits.queued) == (0, 0)


async def test_a_permit_given_in_the_moment_in_which_the_wait_ends_is_kept() -> None:
    permits = Permits("m", 1, 5, 0.01, clock=Clock(100.0))
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await settle()
    time.sleep(0.02)  # noqa: ASYNC251 - the loop is held up, so that both happen in its next turn
    asyncio.get_running_loop().call_soon(held.release)
    (await waiting).release()
    assert (permits.in_flight, permits.queued) == (0, 0)


async def test_after_a_thousand_random_departures_every_permit_is_back() -> None:
    chance = random.Random(7)
    permits = Permits("m", 3, 1000, 60)

    async def caller(pauses: int) -> None:
        permit = await permits.acquire()
        try:
            assert permits.in_flight <= 3
            for _ in range(pauses):
                await asyncio.sleep(0)
        finally:
            permit.release()

    tasks = [asyncio.create_task(caller(chance.randrange(4))) for _ in range(1000)]
    while not all(task.done() for task in tasks):
        for task in chance.sample(tasks, 20):
            if chance.random() < 0.5:
                task.cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [r for r in results if isinstance(r, Exception)]
    assert any(isinstance(r, asyncio.CancelledError) for r in results)
    assert (permits.in_flight, permits.queued) == (0, 0)


async def queue_up(permits: Permits, callers: str, order: list[str]) -> list[asyncio.Task[None]]:
    """One task for each letter of `callers`; each gives its permit back at once, and notes its letter."""

    async def call(caller: str) -> None:
        permit = await permits.acquire(caller)
        order.append(caller)
        permit.release()

    tasks = [asyncio.create_task(call(caller)) for caller in callers]
    await settle()
    return tasks


async def test_callers_take_turns_however_many_calls_they_have() -> None:
    permits, order = Permits("m", 1, 100, 60), []
    held = await permits.acquire()
    tasks = await queue_up(permits, "aaaaaabbc", order)
    held.release()
    await asyncio.gather(*tasks)
    assert "".join(order) == "abcabaaaa"


async def test_a_quiet_caller_takes_the_place_of_the_noisiest_ones_youngest_call() -> None:
    permits, order = Permits("m", 1, 4, 60), []
    held = await permits.acquire()
    tasks = await queue_up(permits, "aaab", order)
    tasks += await queue_up(permits, "c", order)
    assert permits.queued == 4
    with pytest.raises(Overloaded, match="`m`: pushed out of a full queue, where 3 of 4 waiting were") as pushed_out:
        await tasks[2]
    assert pushed_out.value.metadata == {"refusal": "pushed_out"}
    assert pushed_out.value.retry_after_s
    held.release()
    await asyncio.gather(*tasks[:2], *tasks[3:])
    assert "".join(order) == "abca"
    assert (permits.in_flight, permits.queued) == (0, 0)


async def test_nobody_is_pushed_out_for_a_caller_that_would_have_as_many() -> None:
    permits, order = Permits("m", 1, 3, 60), []
    held = await permits.acquire()
    tasks = await queue_up(permits, "aab", order)
    for caller in ("a", "b"):
        with pytest.raises(Overloaded, match="3 waiting, limit 3"):
            await permits.acquire(caller)
    held.release()
    await asyncio.gather(*tasks)


async def test_one_who_is_pushed_out_and_cancelled_in_that_moment_is_cancelled() -> None:
    permits, order = Permits("m", 1, 2, 60), []
    held = await permits.acquire()
    tasks = await queue_up(permits, "aa", order)
    late = asyncio.create_task(permits.acquire("b"))
    await asyncio.sleep(0)  # it has pushed out the second, which has not run yet
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    held.release()
    await tasks[0]
    (await late).release()
    assert (permits.in_flight, permits.queued) == (0, 0)


async def test_the_place_of_one_who_leaves_in_that_moment_is_anothers() -> None:
    permits, order = Permits("m", 1, 2, 60), []
    held = await permits.acquire()
    tasks = await queue_up(permits, "aa", order)
    late = asyncio.create_task(permits.acquire("b"))
    tasks[1].cancel()  # and so is its turn, which it has not taken out of the queue when the other comes
    await settle()
    assert permits.queued == 2
    held.release()
    await tasks[0]
    (await late).release()
    assert tasks[1].cancelled()
    assert (permits.in_flight, permits.queued) == (0, 0)


async def returning(permits: Permits, clock: Clock, count: int, every_s: float) -> None:
    """As many permits come back, one at a time, all the others being in use."""
    for _ in range(count):
        permit = await permits.acquire("warmer")
        clock.now += every_s
        permit.release()


async def test_who_cannot_make_it_any_more_is_refused_at_once() -> None:
    clock, order = Clock(100.0), []
    permits = Permits("m", 1, 100, 60, clock=clock)
    await returning(permits, clock, 20, 1.0)
    held = await permits.acquire()
    tasks = await queue_up(permits, "a" * 20, order)
    with pytest.raises(
        Overloaded, match=r"20 calls go before this one, about 21.0 s, and its deadline is in 5.0 s"
    ) as no:
        await permits.acquire("a", clock.now + 5)
    assert no.value.metadata == {"refusal": "deadline_too_near"}
    assert no.value.retry_after_s == pytest.approx(21)
    assert permits.queued == 20
    quiet = asyncio.create_task(permits.acquire("b", clock.now + 5))  # one call goes before it, not twenty
    hopeful = asyncio.create_task(permits.acquire("a", clock.now + 15))  # unlikely, but not impossible
    await settle()
    assert permits.queued == 22
    held.release()
    await settle()
    (await quiet).release()
    (await hopeful).release()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("known", [0, 19])
async def test_nobody_is_refused_on_a_guess(known: int) -> None:
    clock, order = Clock(100.0), []
    permits = Permits("m", 1, 100, 60, clock=clock)
    await returning(permits, clock, known, 100.0)
    held = await permits.acquire()
    tasks = await queue_up(permits, "a" * 50, order)
    hasty = asyncio.create_task(permits.acquire("a", clock.now + 1))
    await settle()
    assert permits.queued == 51
    held.release()
    (await hasty).release()
    await asyncio.gather(*tasks)


async def test_a_stall_that_is_over_makes_nobody_hopeless() -> None:
    clock, order = Clock(100.0), []
    permits = Permits("m", 4, 100, 60, clock=clock)
    stalled = [await permits.acquire() for _ in range(4)]
    clock.now += 600
    for permit in stalled:
        permit.release()
    permits_held = [await permits.acquire() for _ in range(3)]
    await returning(permits, clock, 40, 0.01)
    permits_held.append(await permits.acquire())
    tasks = await queue_up(permits, "a" * 50, order)
    hasty = asyncio.create_task(permits.acquire("a", clock.now + 1))
    await settle()
    assert permits.queued == 51
    for permit in permits_held:
        permit.release()
    (await hasty).release()
    await asyncio.gather(*tasks)


async def test_calls_that_end_while_permits_are_free_say_nothing_of_how_fast_they_come_back() -> None:
    clock = Clock(100.0)
    permits = Permits("m", 2, 0, 60, clock=clock)
    for _ in range(5):
        permit = await permits.acquire()
        clock.now += 1000.0
        permit.release()
    assert permits.retry_after_s() == 1.0


async def test_a_limit_that_grows_lets_go_of_those_who_wait() -> None:
    limit = 1
    permits, order = Permits("m", lambda: limit, 100, 60), []
    held = await permits.acquire()
    tasks = await queue_up(permits, "aaa", order)
    limit = 2
    await asyncio.gather(*tasks)  # though nobody has come or left
    limit = 1
    held.release()
    assert (permits.in_flight, permits.queued) == (0, 0)


async def test_a_limit_that_shrinks_takes_no_permit_away() -> None:
    limit = 3
    permits = Permits("m", lambda: limit, 100, 60)
    held = [await permits.acquire() for _ in range(3)]
    waiting = asyncio.create_task(permits.acquire())
    await settle()
    limit = 1
    for permit in held[:2]:
        permit.release()
        await settle()
        assert not waiting.done()
    held[2].release()
    (await waiting).release()
    assert permits.in_flight == 0


async def test_an_adaptive_limit_learns_from_the_holders_and_lets_go_of_those_who_wait() -> None:
    clock = Clock(100.0)
    limit = AdaptiveLimit(1, 64)
    permits, order = Permits("m", limit, 100, 60, clock=clock), []
    held = [await permits.acquire() for _ in range(limit())]
    tasks = await queue_up(permits, "aaa", order)
    for _ in range(16):
        clock.now += 1
        held[0].answered()
    assert limit.probing
    assert permits.max_concurrency == 2
    for permit in held:
        permit.release()
    await asyncio.gather(*tasks)
    permit = await permits.acquire()
    permit.overloaded()
    assert not limit.probing
    assert permits.max_concurrency == 1
    permit.release()


async def test_new_limits_hold_for_who_is_there_already() -> None:
    permits = Permits("m", 1, 5, 60)
    held = await permits.acquire()
    waiting = [asyncio.create_task(permits.acquire()) for _ in range(3)]
    await settle()
    permits.limit(3, 0, 60)
    await settle()
    assert (permits.in_flight, permits.queued) == (3, 1)
    with pytest.raises(Overloaded, match="no queue"):
        await permits.acquire()
    permits.limit(1, 5, 60)
    held.release()
    (await waiting[0]).release()
    await settle()
    assert (permits.in_flight, permits.queued) == (
        1,
        1,
    )  # fewer than are in use: nobody is let in until enough are back
    (await waiting[1]).release()
    (await waiting[2]).release()
    assert (permits.in_flight, permits.queued) == (0, 0)
