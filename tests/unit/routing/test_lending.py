"""Permits that are lent: never more than the limit in use, and none lost, whatever borrowers do."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.core.errors import Overloaded, UnknownModel
from polyroute.routing.adaptive import AdaptiveLimit
from polyroute.routing.lending import Lending
from polyroute.routing.lent_permits import LentPermits
from polyroute.routing.permits import Permit, Permits


class Link:
    """A borrower whose messages take a turn of the loop each, in both directions; the lender's permits are `m`'s."""

    def __init__(self, lending: Lending) -> None:
        self.lending = lending
        self.permits = LentPermits("m", self, 1, 64)
        self.asked = 0
        self.told: list[tuple[float, bool]] = []

    async def ask(self, permits: LentPermits, caller: str, deadline: float | None, *, ahead: bool) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        permits.lent(await self.lending.ask(self, permits.key, permits.name, caller, deadline, ahead=ahead))

    def give_back(self, permits: LentPermits, count: int) -> None:
        asyncio.get_running_loop().call_soon(self.lending.give_back, self, permits.key, count)

    def judged(self, permits: LentPermits, began: float, *, overloaded: bool) -> None:
        self.told.append((began, overloaded))
        self.lending.judged(self, permits.key, began, overloaded=overloaded)

    def recall(self, key: int) -> None:
        asyncio.get_running_loop().call_soon(self._recalled, key)

    def _recalled(self, key: int) -> None:
        self.lending.recalled(self, key, self.permits.recalled())


def lending_of(permits: Permits) -> Lending:
    def find(name: str) -> Permits:
        if name != "m":
            raise UnknownModel(name)
        return permits

    return Lending(find)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_while_there_are_plenty_a_few_are_lent_ahead() -> None:
    permits = Permits("m", 128, 0, 1)
    link = Link(lending_of(permits))
    for _ in range(1000):
        (await link.permits.acquire()).release()
    assert link.asked == 1
    await settle()
    assert permits.free == 128 - link.permits.spare
    assert 0 < link.permits.spare <= 64


async def test_calls_that_come_and_go_in_bursts_ask_seldom() -> None:
    permits = Permits("m", 4096, 0, 1)
    link = Link(lending_of(permits))
    given = 0
    for _ in range(20):
        asked = link.asked
        burst = await asyncio.gather(*(link.permits.acquire() for _ in range(300)))
        given = max(given, link.asked - asked) if asked else given
        for permit in burst:
            permit.release()
        await settle()
        assert permits.free == 4096 - link.permits.spare
    assert given <= 300 - 256 + 128


@given(seed=st.integers(0, 2**32), limit=st.integers(2, 600))
def test_no_call_of_a_burst_is_refused_while_a_permit_is_idle(seed: int, limit: int) -> None:
    asyncio.run(bursts(random.Random(seed), limit))


async def bursts(chance: random.Random, limit: int) -> None:
    permits = Permits("m", limit, 0, 1)
    lending = lending_of(permits)
    links = [Link(lending), Link(lending)]
    for _ in range(4):
        first = chance.randrange(limit + 1)
        sizes = (first, chance.randrange(limit - first + 1))
        calls = [link.permits.acquire() for link, size in zip(links, sizes, strict=True) for _ in range(size)]
        chance.shuffle(calls)
        for permit in await asyncio.gather(*calls):
            permit.release()
        await settle()


async def test_of_what_is_called_back_each_call_that_waits_for_it_has_one() -> None:
    permits = Permits("m", 64, 0, 1)
    lending = lending_of(permits)
    one, other, third = (Link(lending) for _ in range(3))
    (await other.permits.acquire()).release()
    while permits.free:
        await third.permits.acquire()
    idle = other.permits.spare + third.permits.spare
    assert idle > 8
    await asyncio.gather(*(one.permits.acquire() for _ in range(idle)))
    assert permits.free == 0


async def test_what_is_given_back_beyond_a_call_counts_as_idle_no_more() -> None:
    permits = Permits("m", 64, 0, 1)
    lending = lending_of(permits)
    link = Link(lending)
    held = [await link.permits.acquire() for _ in range(20)]
    lending.idle(link, 1, link.permits.spare)
    assert permits.in_flight == 20
    while len(held) > 1:
        held.pop().release()
        await settle()
        lending.idle(link, 1, link.permits.spare)
        assert permits.in_flight == len(held)


async def test_a_borrower_that_has_nothing_to_give_back_uses_as_much_as_before() -> None:
    permits = Permits("m", 64, 0, 1)
    lending = lending_of(permits)
    link = Link(lending)
    held = [await link.permits.acquire()]
    while link.permits.spare:
        held.append(await link.permits.acquire())
    await lending.recall_all()
    assert permits.in_flight == len(held)


async def test_what_one_has_spare_another_gets_when_it_needs_it() -> None:
    permits = Permits("m", 8, 0, 1)
    lending = lending_of(permits)
    one, other = Link(lending), Link(lending)
    (await one.permits.acquire()).release()
    assert one.permits.spare > 0
    held = [await other.permits.acquire() for _ in range(8)]
    assert (one.permits.spare, other.permits.here) == (0, 8)
    with pytest.raises(Overloaded, match="8 of 8 permits in use"):
        await one.permits.acquire()
    for permit in held:
        permit.release()
    await settle()
    assert permits.free == 8


async def test_calls_of_all_borrowers_wait_in_one_queue() -> None:
    permits = Permits("m", 1, 2, 60)
    lending = lending_of(permits)
    one, other = Link(lending), Link(lending)
    held = await one.permits.acquire()
    waiting = [asyncio.create_task(link.permits.acquire()) for link in (other, one)]
    await settle()
    assert permits.queued == 2
    with pytest.raises(Overloaded, match="2 waiting, limit 2"):
        await other.permits.acquire()
    held.release()
    first = await waiting[0]
    assert not waiting[1].done()
    first.release()
    (await waiting[1]).release()


async def test_who_leaves_the_queue_takes_nothing() -> None:
    permits = Permits("m", 1, 2, 60)
    link = Link(lending_of(permits))
    held = await link.permits.acquire()
    waiting = asyncio.create_task(link.permits.acquire())
    await settle()
    waiting.cancel()
    await settle()
    held.release()
    await settle()
    assert (permits.queued, permits.free) == (0, 1)


async def test_a_borrower_that_is_gone_leaves_nothing_behind() -> None:
    permits = Permits("m", 8, 0, 1)
    lending = lending_of(permits)
    one, other = Link(lending), Link(lending)
    await one.permits.acquire()
    lending.idle(one, 1, one.permits.spare)
    kept = await other.permits.acquire()
    lending.end(one)
    assert permits.in_flight - other.permits.spare == 1
    kept.release()
    lending.end(other)
    assert (permits.free, permits.idle) == (8, 0)


async def test_a_borrower_that_is_stuck_holds_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyroute.routing.lending.RECALL_S", 0.01)
    permits = Permits("m", 8, 0, 1)
    lending = lending_of(permits)
    stuck, other = Link(lending), Link(lending)
    await stuck.permits.acquire()
    monkeypatch.setattr(stuck, "recall", lambda key: None)
    for _ in range(8 - 1 - stuck.permits.spare):
        await other.permits.acquire()
    with pytest.raises(Overloaded):
        await other.permits.acquire()


async def test_a_borrower_that_is_stuck_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyroute.routing.lending.RECALL_S", 0.01)
    permits = Permits("m", 8, 0, 1)
    lending = lending_of(permits)
    stuck, other = Link(lending), Link(lending)
    await stuck.permits.acquire()
    monkeypatch.setattr(stuck, "recall", lambda key: None)
    while permits.free:
        await other.permits.acquire()
    with pytest.raises(Overloaded):
        await other.permits.acquire()
    monkeypatch.setattr("polyroute.routing.lending.RECALL_S", 3600.0)
    async with asyncio.timeout(60):
        with pytest.raises(Overloaded):
            await other.permits.acquire()


async def test_a_call_that_is_refused_leaves_no_loan() -> None:
    permits = Permits("m", 1, 0, 1)
    lending = lending_of(permits)
    one, other = Link(lending), Link(lending)
    held = await one.permits.acquire()
    with pytest.raises(Overloaded):
        await other.permits.acquire()
    held.release()
    await settle()
    assert not lending._loans
    assert not lending._of


async def test_an_answer_that_is_on_its_way_is_none_of_a_later_loan() -> None:
    permits = Permits("m", 8, 0, 1)
    lending = lending_of(permits)
    link, recalls = Link(lending), list[int]()
    link.recall = recalls.append  # type: ignore[method-assign] - it is not told of yet
    terms = await lending.ask(link, 1, "m", "", None)
    first = asyncio.create_task(lending.recall_all())
    await settle()
    lending.give_back(link, 1, terms.spare + 1)  # which crosses the recall
    await lending.ask(link, 1, "m", "", None)
    second = asyncio.create_task(lending.recall_all())
    await settle()
    assert len(recalls) == 2
    lending.recalled(link, 1, 0)  # the answer to the first
    await settle()
    assert (first.done(), second.done()) == (True, False)
    lending.recalled(link, 1, 1)
    await second
    lending.end(link)
    assert (permits.free, lending._loans) == (8, {})


async def test_permits_that_others_take_the_place_of_keep_nothing() -> None:
    permits = Permits("m", 8, 0, 1)
    link = Link(lending_of(permits))
    running = await link.permits.acquire()
    assert link.permits.spare > 0
    link.permits.retire()
    await settle()
    assert (link.permits.spare, permits.free) == (0, 7)
    late = await link.permits.acquire()  # by a call that began with them
    await settle()
    assert (link.permits.spare, permits.free) == (0, 6)
    running.release()
    late.release()
    await settle()
    assert permits.free == 8


async def test_a_limit_that_moves_is_lent_one_by_one() -> None:
    limit = 4
    permits = Permits("m", lambda: limit, 0, 1)
    link = Link(lending_of(permits))
    (await link.permits.acquire()).release()
    await settle()
    assert (link.permits.spare, permits.free) == (0, 4)


async def test_an_adaptive_limit_hears_of_every_call() -> None:
    permits = Permits("m", AdaptiveLimit(1, 8), 0, 1)
    link = Link(lending_of(permits))
    first, second = await link.permits.acquire(), await link.permits.acquire()
    first.answered()
    second.overloaded()
    assert [overloaded for _, overloaded in link.told] == [False, True]
    plain = Link(lending_of(Permits("m", 8, 0, 1)))
    (await plain.permits.acquire()).answered()
    assert plain.told == []


async def test_of_an_unknown_deployment_none_are_lent() -> None:
    link = Link(lending_of(Permits("m", 1, 0, 1)))
    link.permits.name = "n"
    with pytest.raises(UnknownModel):
        await link.permits.acquire()


async def test_what_is_called_back_is_there_for_a_smaller_limit() -> None:
    permits = Permits("m", 128, 10, 60)
    lending = lending_of(permits)
    link = Link(lending)
    (await link.permits.acquire()).release()
    permits.limit(1, 10, 60)
    await lending.recall_all()
    first = await link.permits.acquire()
    waiting = asyncio.create_task(link.permits.acquire())
    await settle()
    assert not waiting.done()
    first.release()
    (await waiting).release()


@given(seed=st.integers(0, 2**32), limit=st.integers(1, 40), links=st.integers(1, 4))
def test_the_limit_holds_whatever_happens(seed: int, limit: int, links: int) -> None:
    asyncio.run(at_random(random.Random(seed), limit, links))


async def at_random(chance: random.Random, limit: int, count: int) -> None:
    permits = Permits("m", limit, 1000, 60)
    lending = lending_of(permits)
    links = [Link(lending) for _ in range(count)]
    held: list[tuple[Link, Permit]] = []

    async def call(link: Link) -> None:
        held.append((link, await link.permits.acquire(chance.choice("abc"))))

    calls: list[asyncio.Task[None]] = []
    for _ in range(120):
        what = chance.random()
        if what < 0.5:
            calls.append(asyncio.create_task(call(chance.choice(links))))
        elif what < 0.8 and held:
            held.pop(chance.randrange(len(held)))[1].release()
        elif what < 0.85 and calls:
            chance.choice(calls).cancel()
        elif what < 0.9:
            await lending.recall_all()
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        assert sum(link.permits.here for link in links) <= limit
    while any(not task.done() for task in calls) or held:
        if held:
            held.pop()[1].release()
        await asyncio.sleep(0)
    await settle()
    await lending.recall_all()
    assert permits.free == limit
    await asyncio.gather(*calls, return_exceptions=True)
