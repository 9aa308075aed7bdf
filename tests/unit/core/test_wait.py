"""A wait that is cut ends with it alone; one that is cancelled by others as well belongs to them."""

from __future__ import annotations

import asyncio

import pytest

from polyroute.core.wait import Wait


async def waiting(waits: list[Wait]) -> str:
    wait = Wait()
    waits.append(wait)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if wait.was_cut():
            return "cut"
        raise
    return "there"


async def begun(waits: list[Wait]) -> asyncio.Task[str]:
    task = asyncio.create_task(waiting(waits))
    while not waits:  # noqa: ASYNC110 - it is one turn of the loop
        await asyncio.sleep(0)
    return task


async def test_a_wait_that_is_cut() -> None:
    waits: list[Wait] = []
    task = await begun(waits)
    waits[0].cut()
    waits[0].cut()
    assert await task == "cut"
    assert task.cancelling() == 0


async def test_a_task_that_is_cancelled() -> None:
    task = await begun([])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_wait_that_is_cut_in_a_task_that_is_cancelled_too() -> None:
    waits: list[Wait] = []
    task = await begun(waits)
    waits[0].cut()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_done_between_two_waits_is_left_alone() -> None:
    wait = Wait()
    assert not wait.was_cut()
    wait.cut()
    await asyncio.sleep(0)
    wait.again()
    asyncio.get_running_loop().call_soon(wait.cut)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.Event().wait()
    assert wait.was_cut()
    assert not wait.was_cut()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
