"""Who is inside is counted, and the last to leave is waited for."""

from __future__ import annotations

import asyncio

from polyroute.routing.occupancy import Occupancy


async def test_an_empty_one_is_not_waited_for() -> None:
    occupancy = Occupancy()
    assert await occupancy.empty(0)
    occupancy.enter()
    occupancy.leave()
    assert await occupancy.empty(0)


async def test_the_last_to_leave_is_waited_for() -> None:
    occupancy = Occupancy()
    occupancy.enter()
    occupancy.enter()
    waiting = asyncio.create_task(occupancy.empty(60))
    await asyncio.sleep(0)
    occupancy.leave()
    await asyncio.sleep(0)
    assert not waiting.done()
    occupancy.leave()
    assert await waiting


async def test_who_stays_longer_than_the_limit_is_told() -> None:
    occupancy = Occupancy()
    occupancy.enter()
    assert not await occupancy.empty(0)
    assert occupancy.inside == 1
    occupancy.leave()
    occupancy.enter()
    assert not await occupancy.empty(0)
