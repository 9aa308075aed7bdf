"""Calls are let in until the intake is closed; those that wait when they are cut end with `Draining`, others do not."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from polyroute.core.errors import Draining
from polyroute.routing.layers.intake import Intake


async def waiting(intake: Intake, *, stubborn: bool = False) -> int:
    """A call that waits for ever; returns how often its task counts as cancelled when the wait has ended in order."""
    with intake.admitted(), intake.waiting():
        if not stubborn:
            await asyncio.Event().wait()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def begun(intake: Intake, *, stubborn: bool = False) -> asyncio.Task[int]:
    task = asyncio.create_task(waiting(intake, stubborn=stubborn))
    await asyncio.sleep(0)
    return task


async def test_who_waits_when_calls_are_cut_ends_as_draining() -> None:
    intake = Intake()
    calls = [await begun(intake) for _ in range(3)]
    assert not await intake.drain(0)
    intake.cut()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [Draining] * 3
    assert [call.cancelling() for call in calls] == [0] * 3
    assert await intake.drain(0)


async def test_who_comes_or_waits_later_is_refused() -> None:
    intake = Intake()
    with intake.admitted():
        intake.cut()
        with pytest.raises(Draining), intake.waiting():
            pytest.fail("nobody waits any more")
    with pytest.raises(Draining):
        intake.admitted()
    assert await intake.drain(0)


async def test_a_caller_that_leaves_in_the_same_moment_has_left() -> None:
    intake = Intake()
    call = await begun(intake)
    intake.cut()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await intake.drain(0)


async def test_who_ends_in_order_though_it_was_cut_leaves_nothing_on_the_task() -> None:
    intake = Intake()
    call = await begun(intake, stubborn=True)
    intake.cut()
    assert await call == 0
