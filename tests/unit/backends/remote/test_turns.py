"""A burst begins at once, the rest in line; who leaves a line holds nobody up."""

from __future__ import annotations

import asyncio

from polyroute.backends.remote.turns import Turns


async def test_a_burst_then_one_after_the_other() -> None:
    now, waits = [100.0], []

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)

    turns = Turns(3, 10, clock=lambda: now[0], sleep=sleep)
    for _ in range(5):
        await turns.turn()
    assert [round(wait, 6) for wait in waits] == [0.1, 0.2]
    now[0] += 0.2
    await turns.turn()
    assert round(waits[-1], 6) == 0.1
    now[0] += 60  # rest does not add up beyond the burst
    waits.clear()
    for _ in range(4):
        await turns.turn()
    assert [round(wait, 6) for wait in waits] == [0.1]


async def test_a_turn_that_is_not_waited_for_is_given_back() -> None:
    waits, forever = [], asyncio.Event()

    async def sleep(wait_s: float) -> None:
        waits.append(round(wait_s, 6))
        await forever.wait()

    turns = Turns(1, 10, clock=lambda: 100.0, sleep=sleep)
    await turns.turn()
    for _ in range(3):
        waiting = asyncio.create_task(turns.turn())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert waits == [0.1] * 3


async def test_each_line_is_its_own() -> None:
    waits = []

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)

    turns = Turns(1, 10, clock=lambda: 100.0, sleep=sleep)
    for _ in range(9):
        await turns.turn()
    waits.clear()
    await turns.turn("lost")
    assert waits == []
