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
    reader, patience = Reader(), Patience(LIMIT_S)
    await patience.write(reader.write, 1)
    reader.reads.clear()
    with pytest.raises(Cancelled, match=r"the caller left the stream unread for 0\.02 s"):
        await patience.write(reader.write, 2)
    assert reader.taken == [1]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "the task itself goes on"


async def test_time_in_which_nothing_is_written_does_not_count() -> None:
    reader, patience = Reader(), Patience(LIMIT_S)
    await patience.write(reader.write, 1)
    await asyncio.sleep(3 * LIMIT_S)
    await patience.write(reader.write, 2)
    await asyncio.sleep(2 * LIMIT_S)
    assert reader.taken == [1, 2]


async def test_who_is_late_leaves_and_nobody_else_does() -> None:
    patience, late, others = Patience(LIMIT_S), Reader(), [Reader() for _ in range(20)]
    late.reads.clear()
    left = asyncio.create_task(patience.write(late.write, "late"))
    await asyncio.gather(*(patience.write(other.write, "other") for other in others))
    with pytest.raises(Cancelled):
        await left
    assert late.taken == []
    assert [other.taken for other in others] == [["other"]] * 20


async def test_all_who_are_late_leave_however_many_there_are() -> None:
    patience, readers = Patience(LIMIT_S), [Reader() for _ in range(20)]
    for reader in readers:
        reader.reads.clear()
    ends = await asyncio.gather(*(patience.write(reader.write, 1) for reader in readers), return_exceptions=True)
    assert [type(end) for end in ends] == [Cancelled] * 20
    readers[0].reads.set()
    await patience.write(readers[0].write, 2)
    assert readers[0].taken == [2], "and it serves whoever comes then"


async def test_who_is_cancelled_by_others_has_not_been_waited_for() -> None:
    reader = Reader()
    reader.reads.clear()

    async def stream() -> None:
        await Patience(3600).write(reader.write, 1)

    task = asyncio.create_task(stream())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failed_write_is_told_as_it_is() -> None:
    async def write(_: Any) -> None:
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await Patience(LIMIT_S).write(write, 1)
