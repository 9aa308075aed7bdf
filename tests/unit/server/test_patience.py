"""A reader that leaves a message waiting too long has left; one that comes back in time, or is cancelled, has not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polyroute.core.errors import Cancelled
from polyroute.server.patience import Patience

LIMIT_S = 0.02


class Reader:
    """The other end: takes what is written while `reads` is set."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.taken: list[Any] = []

    async def write(self, message: Any) -> None:
        await self.reads.wait()
        self.taken.append(message)


async def test_a_reader_that_does_not_come_has_left() -> None:
    reader = Reader()
    patience = Patience(reader.write, LIMIT_S)
    await patience.write(1)
    reader.reads.clear()
    with pytest.raises(Cancelled, match=r"the caller left the stream unread for 0\.02 s"):
        await patience.write(2)
    assert reader.taken == [1]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "the task itself goes on"


async def test_time_in_which_nothing_is_written_does_not_count() -> None:
    reader = Reader()
    patience = Patience(reader.write, LIMIT_S)
    await patience.write(1)
    await asyncio.sleep(3 * LIMIT_S)
    await patience.write(2)
    patience.end()
    await asyncio.sleep(2 * LIMIT_S)
    assert reader.taken == [1, 2]


async def test_who_is_cancelled_by_others_has_not_been_waited_for() -> None:
    reader = Reader()
    reader.reads.clear()

    async def stream() -> None:
        await Patience(reader.write, 3600).write(1)

    task = asyncio.create_task(stream())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
