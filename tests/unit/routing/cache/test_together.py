"""What is asked of a busy thread goes together, and everybody gets his own answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from threading import Event

import pytest

from polyroute.routing.cache.together import Together


class Work:
    """What the thread does while it may; remembers what it was handed at once, and in which threads it was done."""

    def __init__(self) -> None:
        self.may = Event()
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()

    def __call__(self, asked: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(asked))
        self.threads.add(threading.current_thread().name)
        assert self.may.wait(60)
        if 13 in asked:
            raise OSError("all of it")
        if 17 in asked:
            raise SystemExit("not even an exception")
        return [ValueError("odd") if each % 2 else 10 * each for each in asked]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def together(work: Work) -> Iterator[Together[int, int]]:
    made = Together(work, 4, "asked")
    yield made
    work.may.set()
    made.close(lambda: None).result(60)


async def under_way(work: Work) -> None:
    """Waits until the thread has been handed something."""
    while not work.batches:  # noqa: ASYNC110 - another thread's
        await asyncio.sleep(0.001)


async def test_what_comes_while_it_is_busy_goes_together_and_bounded(work: Work, together: Together[int, int]) -> None:
    asking = [together.ask(0)]
    await under_way(work)
    asking += [together.ask(i) for i in range(2, 20, 2)]
    assert len(together) == 10
    work.may.set()
    assert await asyncio.gather(*asking) == [10 * i for i in range(0, 20, 2)]
    assert work.batches == [[0], [2, 4, 6, 8], [10, 12, 14, 16], [18]]
    assert work.threads == {"asked"}
    assert len(together) == 0


async def test_an_error_is_that_of_who_asked_and_one_of_the_whole_is_everybodys(
    work: Work, together: Together[int, int]
) -> None:
    work.may.set()
    answers = await asyncio.gather(*(together.ask(i) for i in (2, 3, 4)), return_exceptions=True)
    assert [repr(answer) for answer in answers] == ["20", "ValueError('odd')", "40"]
    answers = await asyncio.gather(*(together.ask(i) for i in (13, 8)), return_exceptions=True)
    assert [repr(answer) for answer in answers] == ["OSError('all of it')"] * 2
    with pytest.raises(RuntimeError, match="not even an exception"):
        await together.ask(17)
    assert await together.ask(10) == 100


async def test_who_stops_waiting_holds_up_nobody(work: Work, together: Together[int, int]) -> None:
    first, second, third = (together.ask(i) for i in (2, 4, 6))
    first.cancel()
    second.cancel()
    settled = asyncio.create_task(together.settled())
    await asyncio.sleep(0)
    work.may.set()
    assert await third == 60
    await settled
    assert first.cancelled()
    assert second.cancelled()


async def test_one_that_is_closed_takes_no_more(work: Work, together: Together[int, int]) -> None:
    work.may.set()
    assert await together.ask(2) == 20
    ended: list[str] = []
    await asyncio.wrap_future(together.close(lambda: ended.append(threading.current_thread().name)))
    assert ended == ["asked"]
    for i in range(2):
        with pytest.raises(RuntimeError, match="has ended"):
            await together.ask(i)
    assert len(together) == 0
    await together.settled()
    await asyncio.wrap_future(together.close(lambda: pytest.fail("done twice")))


async def test_one_that_was_never_asked_has_no_thread_to_end(together: Together[int, int]) -> None:
    before = threading.active_count()
    await asyncio.wrap_future(together.close(lambda: pytest.fail("done in no thread")))
    assert threading.active_count() == before


async def test_a_thread_that_cannot_be_had_is_asked_for_again(
    work: Work, together: Together[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    work.may.set()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="start new thread"):
            await together.ask(2)
    assert len(together) == 0
    async with asyncio.timeout(60):
        assert await together.ask(4) == 40
    assert work.batches == [[4]]


async def test_what_goes_when_it_is_closed_is_answered_and_nobody_else_is_left_waiting(
    work: Work, together: Together[int, int]
) -> None:
    """However many wait when it is closed, more than go at once too."""
    asking = [together.ask(0)]
    await under_way(work)
    asking += [together.ask(i) for i in range(2, 14, 2)]
    closed = together.close(lambda: None)
    work.may.set()
    async with asyncio.timeout(60):
        first, *others = await asyncio.gather(*asking, return_exceptions=True)
        await asyncio.wrap_future(closed)
    assert first == 0
    assert [str(other) for other in others] == ["the thread has ended"] * 6
    assert len(together) == 0


async def test_what_close_is_to_do_last_may_fail(work: Work, together: Together[int, int]) -> None:
    work.may.set()
    await together.ask(2)

    def fail() -> None:
        raise OSError("cannot let go")

    with pytest.raises(OSError, match="cannot let go"):
        await asyncio.wrap_future(together.close(fail))
