"""Permits: bounded, first come first served, and never lost, however their holders leave."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from polyroute.core.errors import DeadlineExceeded, Overloaded
from polyroute.routing.permits import Permits


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
    now = 0.0
    permits = Permits("m", 1, 1, 60, clock=lambda: now)
    (await permits.acquire()).release()
    held = await permits.acquire()
    now = 8.0
    held.release()  # it took 8 s, the one before none: the average is 1.6 s
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await settle()
    with pytest.raises(Overloaded, match="`m`: 1 waiting, limit 1") as refused:
        await permits.acquire()
    assert refused.value.retry_after_s == pytest.approx(3.2)
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
    with pytest.raises(DeadlineExceeded, match="in the queue"):
        await permits.acquire(time.monotonic() + 0.01)
    with pytest.raises(DeadlineExceeded):
        await permits.acquire(time.monotonic() - 1)
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
