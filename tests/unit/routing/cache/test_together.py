"""What is asked of a busy thread goes together, and everybody gets his own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import pytest

from polyroute.routing.cache.together import Together


class Thread:
    """A thread that works while it may, and remembers what it was handed at once."""

    def __init__(self) -> None:
        self.may = Event()
        self.batches: list[list[int]] = []
        self.pool = ThreadPoolExecutor(1)

    def submit(self, asked: Sequence[int]) -> Future[Sequence[int | Exception]]:
        self.batches.append(list(asked))
        return self.pool.submit(self._work, asked)

    def _work(self, asked: Sequence[int]) -> list[int | Exception]:
        assert self.may.wait(60)
        if 13 in asked:
            raise OSError("all of it")
        return [ValueError("odd") if each % 2 else 10 * each for each in asked]


async def test_what_comes_while_it_is_busy_goes_together_and_bounded() -> None:
    thread = Thread()
    together = Together(thread.submit, 4)
    asking = [asyncio.create_task(together.ask(i)) for i in range(0, 20, 2)]
    await asyncio.sleep(0)
    assert (thread.batches, len(together)) == ([[0]], 10)
    thread.may.set()
    assert await asyncio.gather(*asking) == [10 * i for i in range(0, 20, 2)]
    assert thread.batches == [[0], [2, 4, 6, 8], [10, 12, 14, 16], [18]]
    assert len(together) == 0


async def test_an_error_is_that_of_who_asked_and_one_of_the_whole_is_everybodys() -> None:
    thread = Thread()
    thread.may.set()
    together = Together(thread.submit, 4)
    answers = await asyncio.gather(*(together.ask(i) for i in (2, 3, 4)), return_exceptions=True)
    assert [repr(answer) for answer in answers] == ["20", "ValueError('odd')", "40"]
    answers = await asyncio.gather(*(together.ask(i) for i in (6, 13, 8)), return_exceptions=True)
    assert [repr(answer) for answer in answers] == ["60", "OSError('all of it')", "OSError('all of it')"]
    assert await together.ask(10) == 100


async def test_who_stops_waiting_holds_up_nobody() -> None:
    thread = Thread()
    together = Together(thread.submit, 4)
    first, second, third = (asyncio.create_task(together.ask(i)) for i in (2, 4, 6))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    settled = asyncio.create_task(together.settled())
    await asyncio.sleep(0)
    thread.may.set()
    assert await third == 60
    await settled
    assert first.cancelled()
    assert second.cancelled()


async def test_a_thread_that_takes_nothing_any_more_is_an_error() -> None:
    thread = Thread()
    thread.pool.shutdown()
    together = Together(thread.submit, 4)
    for i in range(2):
        with pytest.raises(RuntimeError):
            await together.ask(i)
    assert len(together) == 0
    await together.settled()


async def test_a_thread_that_takes_no_more_leaves_nobody_waiting() -> None:
    """However many wait when it is closed, more than go at once too."""
    thread = Thread()
    together = Together(thread.submit, 2)
    asking = [asyncio.create_task(together.ask(i)) for i in range(0, 14, 2)]
    await asyncio.sleep(0)
    thread.pool.shutdown(wait=False)
    thread.may.set()
    async with asyncio.timeout(60):
        first, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert first == 0
    assert [type(other) for other in others] == [RuntimeError] * 6
    assert len(together) == 0
