"""What can be done together is gathered while the event loop is busy, for a short time, and no longer than it is."""

from __future__ import annotations

import asyncio

from polyroute.routing.cache.gathering import GATHER_S, Gathering


class Turns:
    """A clock by which each turn of the event loop takes `turn_s` seconds; what is gathered, and how it went."""

    def __init__(self, most: int = 100) -> None:
        self.turn_s = 0.0
        self.now = 0.0
        self.waiting: list[int] = []
        self.gone: list[list[int]] = []
        self.gathering = Gathering(self._go, lambda: len(self.waiting) >= most, clock=self)

    def __call__(self) -> float:
        self.now += self.turn_s
        return self.now

    def _go(self) -> None:
        self.gone.append(self.waiting)
        self.waiting = []

    async def once(self, turn_s: float) -> None:
        """Has one gone, by which it is known how long a turn takes that has nothing else to do."""
        self.turn_s = turn_s
        await self.each_turn(1)
        self.gone.clear()

    async def each_turn(self, count: int) -> None:
        """One more is to be done in each of so many turns."""
        for i in range(count):
            self.waiting.append(i)
            self.gathering.begin()
            await asyncio.sleep(0)
        while self.waiting:  # noqa: ASYNC110 - it is a few turns of the loop
            await asyncio.sleep(0)


async def test_a_busy_loop_gathers_what_comes() -> None:
    turns = Turns()
    await turns.once(0.0)
    turns.turn_s = GATHER_S / 8
    await turns.each_turn(5)
    assert turns.gone == [[0, 1, 2, 3, 4]]


async def test_it_gathers_no_longer_than_it_may() -> None:
    turns = Turns()
    await turns.once(0.0)
    turns.turn_s = GATHER_S / 4
    await turns.each_turn(12)
    assert 1 < max(map(len, turns.gone)) <= 6
    assert [i for gone in turns.gone for i in gone] == list(range(12))


async def test_a_machine_on_which_every_turn_takes_long_is_not_taken_for_a_busy_one() -> None:
    turns = Turns()
    await turns.once(GATHER_S / 10)
    turns.turn_s = GATHER_S / 8
    await turns.each_turn(1)
    assert turns.now < GATHER_S


async def test_an_idle_loop_gathers_nothing_but_what_comes_at_once() -> None:
    turns = Turns()
    for i in range(3):
        turns.waiting.append(i)
        turns.gathering.begin()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert turns.gone == [[0, 1, 2]]


async def test_as_many_as_may_go_wait_no_longer() -> None:
    turns = Turns(most=2)
    await turns.once(0.0)
    turns.turn_s = GATHER_S / 50
    turns.waiting = [0, 1]
    turns.gathering.begin()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert turns.gone == [[0, 1]]


async def test_it_can_be_begun_again_from_within() -> None:
    """Who goes may find more to do, for a later time."""
    turns = Turns()
    turns.waiting = [1]
    turns.gathering.begin()
    while not turns.gone:  # noqa: ASYNC110 - it is a few turns of the loop
        await asyncio.sleep(0)
    turns.waiting = [2]
    turns.gathering.begin()
    turns.gathering.begin()
    while turns.waiting:  # noqa: ASYNC110 - it is a few turns of the loop
        await asyncio.sleep(0)
    assert turns.gone == [[1], [2]]
