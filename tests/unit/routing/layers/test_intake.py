"""Calls are let in until the intake is closed; those that wait when they are cut end with `Draining`, others do not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from polyroute.core.errors import Draining
from polyroute.core.wait import Wait
from polyroute.routing.layers.intake import Intake


@contextmanager
def inside(intake: Intake) -> Iterator[Wait]:
    """A call that is inside, and waits."""
    wait = intake.enter()
    try:
        yield wait
    except asyncio.CancelledError as error:
        told = intake.leave(wait, error)
        assert told is not None
        raise told from None
    intake.leave(wait, None)


async def waiting(intake: Intake, *, stubborn: bool = False) -> int:
    """A call that waits for ever; returns how often its task counts as cancelled when the wait has ended in order."""
    with inside(intake):
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
    intake, held = Intake(), list[str]()

    async def holding() -> None:
        with inside(intake) as wait:
            wait.was_cut()
            intake.cut()
            await asyncio.sleep(0)
            held.append("what is done between two waits is left alone")
            wait.again()
            await asyncio.Event().wait()

    with pytest.raises(Draining):
        await holding()
    assert held
    with pytest.raises(Draining):
        intake.enter()
    assert await intake.drain(0)


async def test_who_is_cut_has_what_is_there_without_waiting() -> None:
    intake = Intake()
    with inside(intake) as wait:
        wait.was_cut()
        intake.cut()
        wait.again()
        wait.was_cut()
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


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
