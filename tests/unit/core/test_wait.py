"""A wait that is cut ends with it alone; one that is cancelled by others as well belongs to them."""

from __future__ import annotations

import asyncio

import pytest

from polyroute.core.wait import Limit, Wait


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


async def test_who_is_cut_between_two_waits_has_what_is_there_without_waiting() -> None:
    wait = Wait()
    assert not wait.was_cut()
    wait.cut()
    await asyncio.sleep(0)  # what is done between two waits is left alone
    for _ in range(2):
        wait.again()
        assert not wait.was_cut()
    for _ in range(2):
        wait.again()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        assert wait.was_cut()
        assert not wait.was_cut()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_limit_that_passes_is_a_timeout_and_no_cancellation() -> None:
    limit = Limit(0.001)
    with pytest.raises(TimeoutError), limit:
        await asyncio.Event().wait()
    assert limit.passed
    assert _cancelling() == 0


async def test_a_limit_that_does_not_pass_leaves_nothing_behind() -> None:
    limit = Limit(60)
    with limit:
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError, match="its own"), limit:
        raise TimeoutError("its own")
    assert not limit.passed
    assert _cancelling() == 0


async def test_an_error_that_a_passed_limit_became_is_that_error_alone() -> None:
    async def translated() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("closed") from None

    with pytest.raises(OSError, match="closed"), Limit(0.001):
        await translated()
    assert _cancelling() == 0


async def test_a_task_that_is_cancelled_within_a_limit() -> None:
    limit, inside = Limit(60), asyncio.Event()

    async def limited() -> None:
        with limit:
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(limited())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not limit.passed


def _cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()
