"""A run is shared by whoever asks for the same, and lives as long as anyone of them stays."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyroute.core.errors import Cancelled, DeadlineExceeded, Draining, WorkerDied
from polyroute.routing.cache.flights import Flight, Flights
from polyroute.routing.cache.follower import Follower, RunFailed


class End(str):
    """What a run ends with."""


END = End(".")


class Run:
    """Puts `items`, each once it is let go; remembers how it ended."""

    def __init__(self, *items: str, error: Exception | None = None) -> None:
        self.items = items
        self.error = error
        self.steps = asyncio.Semaphore(0)
        self.begun = 0
        self.given: list[str] = []
        self.closed = False

    async def __call__(self, flight: Flight[str]) -> None:
        self.begun += 1
        try:
            for item in self.items:
                await self.steps.acquire()
                self.given.append(item)
                if flight.put(item):
                    await flight.make_room()
            await self.steps.acquire()
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True

    def go(self, steps: int | None = None) -> None:
        for _ in range(len(self.items) + 1 if steps is None else steps):
            self.steps.release()


def flights(most_bytes: int = 1000) -> Flights[str]:
    return Flights("m", size_of=len, last=(End,), most_bytes=most_bytes)


async def taken(follower: Follower[str]) -> str:
    text = ""
    while (item := await follower.next()) is not None:
        text += item
    return text


def follow(all_of: Flights[str], deadline: float | None = None) -> Follower[str]:
    found = all_of.follow("k", deadline=deadline)
    assert found is not None
    return found


def begin(all_of: Flights[str], run: Run, **options: Any) -> tuple[Flight[str], Follower[str]]:
    flight = all_of.begin("k", run, **options)
    return flight, flight.follow(led=True)


async def test_whoever_joins_has_everything_from_the_first_item(until: Callable[..., Any]) -> None:
    all_of, run = flights(), Run("a", "b", "c", END)
    _, leader = begin(all_of, run)
    first = asyncio.create_task(taken(leader))
    run.go(2)
    await until(lambda: len(run.given) == 2)
    late = asyncio.create_task(taken(follow(all_of)))
    run.go()
    assert await asyncio.gather(first, late) == ["abc.", "abc."]
    assert run.begun == 1


async def test_a_run_that_is_complete_is_joined_no_more_and_not_cut_short(until: Callable[..., Any]) -> None:
    """Its answer is in the cache by then, or was not to be kept."""
    all_of, run = flights(), Run("a", END)
    flight, leader = begin(all_of, run)
    slow = follow(all_of)
    run.go(2)
    assert await taken(leader) == "a."
    assert all_of.follow("k") is None
    await leader.leave()
    assert await taken(slow) == "a."
    await slow.leave()
    assert not run.closed, "what the run does after its last item is its own affair"
    run.go()
    await until(lambda: run.closed)
    assert "complete" in repr(flight)


async def test_it_goes_on_for_the_others_and_ends_with_the_last() -> None:
    all_of, run = flights(), Run("a", "b", END)
    _, leader = begin(all_of, run)
    second, third = follow(all_of), follow(all_of)
    run.go(1)
    assert await second.next() == "a"
    await leader.leave()
    await second.leave()
    assert not run.closed
    assert "k" in all_of
    assert await third.next() == "a"
    await third.leave()
    assert run.closed, "leaving returns once the run has ended"
    assert "k" not in all_of
    assert len(all_of) == 0


async def test_a_run_that_nobody_waited_for_is_never_begun() -> None:
    all_of, run = flights(), Run("a", END)
    _, leader = begin(all_of, run)
    await leader.leave()
    assert (run.begun, "k" in all_of, len(all_of)) == (0, False, 0)


async def test_a_run_without_a_key_is_its_followers_alone() -> None:
    all_of, run = flights(), Run("a", END)
    follower = all_of.begin(None, run).follow(led=True)
    assert (len(all_of), all_of.following, all_of.follow(None)) == (0, 0, None)
    run.go(1)
    assert await follower.next() == "a"
    await all_of.close()
    assert not run.closed, "it ends with its call, which others see to"
    await follower.leave()
    assert run.closed


async def test_what_is_at_hand_is_taken_without_a_wait(until: Callable[..., Any]) -> None:
    all_of, run = flights(), Run("a", "b", END)
    _, leader = begin(all_of, run)
    assert leader.at_hand() is None
    run.go(2)
    await leader.news()
    await until(lambda: len(run.given) == 2)
    assert [leader.at_hand(), leader.at_hand(), leader.at_hand(), leader.is_over] == ["a", "b", None, False]
    run.go()
    assert (await leader.next(), leader.is_over, leader.at_hand(), await leader.next()) == (END, True, None, None)


async def test_the_end_of_a_run_is_told_once_however_it_ends(until: Callable[..., Any]) -> None:
    all_of, ended = flights(), []
    for place, run in enumerate((Run("a", END), Run(error=WorkerDied("gone")), Run("a", END))):
        _, leader = begin(all_of, run, on_end=lambda _, place=place: ended.append(place))
        if place < 2:
            await asyncio.sleep(0)
            run.go()
            await until(lambda run=run: run.closed)
        await leader.leave()
        await until(lambda: len(all_of) == 0)
    assert ended == [0, 1, 2], "the last of them has never begun"


async def test_a_deadline_is_for_waiting_and_what_is_there_is_taken_after_it() -> None:
    all_of, run = flights(), Run("a", "b", END)
    _, leader = begin(all_of, run)
    late = follow(all_of, time.monotonic() - 1)
    run.go(1)
    assert await leader.next() == "a"
    assert await late.next() == "a"
    with pytest.raises(DeadlineExceeded):
        await late.next()
    run.go(1)
    assert await leader.next() == "b"
    assert await late.next() == "b"
    with pytest.raises(DeadlineExceeded):
        await late.next()
    await late.leave()
    await leader.leave()


async def test_one_that_is_cancelled_while_it_waits_leaves_the_others_alone() -> None:
    all_of, run = flights(), Run("a", END)
    _, leader = begin(all_of, run)
    waiting = asyncio.create_task(leader.next())
    other = asyncio.create_task(taken(follow(all_of)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await leader.leave()
    run.go()
    assert await other == "a."


async def test_a_failure_is_shared_with_those_only_that_have_something_of_the_run() -> None:
    error = WorkerDied("gone")
    all_of, run = flights(), Run("a", error=error)
    _, leader = begin(all_of, run)
    untouched = follow(all_of)
    run.go(1)
    assert await leader.next() == "a"
    run.go(1)
    with pytest.raises(WorkerDied, match="gone") as raised:
        await leader.next()
    assert raised.value is not error, "each has one of its own"
    with pytest.raises(RunFailed) as other:
        await untouched.next()
    assert other.value.__cause__ is error
    assert "k" not in all_of


async def test_what_came_before_a_failure_is_still_to_be_had() -> None:
    all_of, run = flights(), Run("a", "b", error=WorkerDied("gone"))
    _, leader = begin(all_of, run)
    run.go(1)
    assert await leader.next() == "a"
    run.go()
    while len(all_of):  # noqa: ASYNC110 - until it has ended
        await asyncio.sleep(0)
    assert await leader.next() == "b"
    with pytest.raises(WorkerDied):
        await leader.next()


async def test_a_crash_is_each_ones_own() -> None:
    all_of, run = flights(), Run("a", error=ZeroDivisionError())
    _, leader = begin(all_of, run)
    run.go(1)
    assert await leader.next() == "a"
    run.go()
    with pytest.raises(RuntimeError, match="crashed") as raised:
        await leader.next()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


async def test_who_joined_knows_how_long_it_has_waited(until: Callable[..., Any]) -> None:
    all_of, run = flights(), Run("a", END)
    _, leader = begin(all_of, run)
    joined, begun = follow(all_of), time.monotonic()
    tasks = [asyncio.create_task(taken(one)) for one in (leader, joined)]
    await until(lambda: joined.waiting is not None)
    run.go()
    await asyncio.gather(*tasks)
    assert 0 < joined.waited_s <= time.monotonic() - begun


async def test_each_has_its_own_deadline() -> None:
    all_of, run = flights(), Run("a", END)
    flight, leader = begin(all_of, run)
    leader.deadline = time.monotonic() - 1
    later = time.monotonic() + 3600
    patient = asyncio.create_task(taken(follow(all_of, later)))
    assert flight.furthest == later
    with pytest.raises(DeadlineExceeded, match="`m`: the caller's deadline passed"):
        await leader.next()
    await leader.leave()
    tireless = follow(all_of)
    assert flight.furthest is None
    await tireless.leave()
    run.go()
    assert await patient == "a."


async def test_a_slow_one_does_not_hold_up_the_others() -> None:
    all_of, run = flights(), Run("aaaa", "bbbb", "cccc", END)
    _, slow = begin(all_of, run)
    assert slow.place == 0
    fast = asyncio.create_task(taken(follow(all_of)))
    run.go()
    assert await fast == "aaaabbbbcccc."
    assert await taken(slow) == "aaaabbbbcccc."


async def test_who_is_too_far_behind_is_left() -> None:
    all_of, run = flights(most_bytes=10), Run(*["x" * 6] * 4, END)
    _, slow = begin(all_of, run)
    fast = asyncio.create_task(taken(follow(all_of)))
    run.go(1)
    assert await slow.next() == "x" * 6
    run.go()
    assert await fast == "x" * 24 + END
    with pytest.raises(Cancelled, match="`m`: left unread until 10 bytes behind the shared run"):
        await slow.next()
    await slow.leave()


async def test_where_all_are_slow_the_run_waits(until: Callable[..., Any]) -> None:
    all_of, run = flights(most_bytes=10), Run(*["x" * 6] * 4, END)
    flight, slow = begin(all_of, run)
    slower = follow(all_of)
    run.go()
    await until(lambda: len(run.given) == 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(run.given) == 2
    assert all_of.follow("k") is None, "its beginning may be given up"
    assert await slow.next() == await slower.next() == "x" * 6
    await until(lambda: len(run.given) == 3)
    await slower.leave()
    assert await taken(slow) == "x" * 18 + END
    assert flight.end == 5


async def test_a_lasting_run_needs_nobody_and_holds_little(until: Callable[..., Any]) -> None:
    all_of, run = flights(most_bytes=10), Run(*["x" * 6] * 4, END)
    all_of.begin("k", run, lasting=True)
    visitor = follow(all_of)
    await visitor.leave()
    run.go()
    await until(lambda: run.closed)
    assert run.given[-1] == END


async def test_closing_ends_every_run() -> None:
    all_of, run = flights(), Run("a", END)
    _, leader = begin(all_of, run)
    waiting = asyncio.create_task(leader.next())
    run.go(1)
    assert await waiting == "a"
    fresh = follow(all_of)
    await all_of.close()
    with pytest.raises(Draining):
        await leader.next()
    with pytest.raises(RunFailed):
        await fresh.next()
    assert run.closed
    await all_of.close()


async def test_closing_before_a_run_began_wakes_its_followers() -> None:
    all_of, run = flights(), Run("a", END)
    _, leader = begin(all_of, run)
    await all_of.close()
    with pytest.raises(RunFailed):
        await leader.next()
    assert run.begun == 0


STEPS = st.lists(st.sampled_from(["give", "join", "take", "take", "take", "leave"]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, most_bytes=st.integers(1, 12), chance=st.randoms(use_true_random=False))
def test_nobody_ever_gets_anything_but_the_runs_own_items_in_order(
    steps: list[str], most_bytes: int, chance: Any
) -> None:
    """Whatever happens in whatever order: what a follower has is a beginning of the run, and the run ends with all."""

    async def scene() -> None:
        all_of, run = flights(most_bytes), Run(*"abcdefghijklmno", END)
        flight = all_of.begin("k", run)
        leader = flight.follow(0)
        whole, inside, had = "".join(run.items), [leader], {leader: ""}
        for step in steps:
            if step == "give":
                run.go(1)
            elif step == "join" and (one := all_of.follow("k", deadline=0)) is not None:
                inside.append(one)
                had[one] = ""
            elif step == "take" and inside:
                one = chance.choice(inside)
                try:
                    had[one] += await one.next() or ""
                except (DeadlineExceeded, Cancelled):
                    pass
                except RunFailed:
                    assert not had[one]
                assert whole.startswith(had[one])
            elif step == "leave" and inside:
                one = inside.pop(chance.randrange(len(inside)))
                await one.leave()
            assert flight._held <= most_bytes + 1 or not inside or not run.given
        for one in inside:
            await one.leave()
        if had and not flight.complete:
            assert run.closed or not run.begun
            assert "k" not in all_of
        await all_of.close()

    asyncio.run(scene())


async def test_what_a_run_held_is_gone_with_its_last_follower() -> None:
    """And not when the garbage collector finds it: it holds a whole answer."""
    all_of, run = flights(), Run("a", END)
    flight, leader = begin(all_of, run)
    run.go()
    await asyncio.wait({flight.task})
    await asyncio.sleep(0)
    await leader.leave()
    held = weakref.ref(flight)
    gc.disable()
    try:
        del flight, leader
        assert held() is None
    finally:
        gc.enable()
