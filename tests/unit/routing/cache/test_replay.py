"""A stored answer comes at its own pace where that is asked for."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest

from polyroute.core.errors import DeadlineExceeded
from polyroute.core.event import Event, Finished, FinishReason, Route, Started, Token
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.replay import Gaps, paced

STARTED = Started(Route(model="m"))
END = Finished(FinishReason.STOP)
TOKENS = (Token("a"), Token("b"))


def stored(*gaps_ms: int, tokens: tuple[Token, ...] = TOKENS) -> StoredAnswer:
    return StoredAnswer(b"k", "m", "v", tokens, END, 0.0, 1.0, gaps_ms)


class Steps:
    """A clock that is told what to say."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_gaps_leave_out_the_queue_and_what_the_taker_takes() -> None:
    clock = Steps()
    gaps = Gaps(clock)
    for arrives, taken in ((1.5, 0.0), (0.25, 10.0), (0.125, 3.0)):
        clock.now += arrives
        gaps.note()
        gaps.held()
        clock.now += taken
        gaps.asked()
    assert gaps.since(queue_s=1.0) == (500, 250, 125)
    assert gaps.since(queue_s=9.0) == (0, 250, 125)


def test_rounding_does_not_add_up() -> None:
    clock = Steps()
    gaps = Gaps(clock)
    for _ in range(1000):
        clock.now += 0.0005
        gaps.note()
    assert sum(gaps.since(0)) == pytest.approx(500, abs=1)


async def take(answer: StoredAnswer, deadline: float | None = None) -> tuple[list[Event], list[float]]:
    events, times, begun = [], [], time.monotonic()
    async with aclosing(paced(answer, STARTED, deadline)) as replayed:
        async for event in replayed:
            events.append(event)
            times.append(time.monotonic() - begun)
    return events, times


async def test_each_part_comes_no_sooner_than_it_came() -> None:
    events, times = await take(stored(30, 20, 10))
    assert events[:-1] == [STARTED, *TOKENS]
    for at, least in zip(times, (0.03, 0.03, 0.05, 0.06), strict=True):
        assert at >= least
    end = events[-1]
    assert isinstance(end, Finished)
    assert 0.06 <= end.timing.backend_s <= times[-1]


async def test_without_times_it_comes_at_once_and_without_tokens_too() -> None:
    assert (await take(stored()))[0] == [STARTED, *TOKENS, END]
    assert (await take(stored(0, tokens=())))[0] == [STARTED, END]


async def test_a_taker_that_is_slow_itself_is_not_slowed_down() -> None:
    begun = time.monotonic()
    async with aclosing(paced(stored(0, 50, 50), STARTED, None)) as replayed:
        async for event in replayed:
            if isinstance(event, Started):
                await asyncio.sleep(0.1)
            last = event
    assert isinstance(last, Finished)
    assert last.timing.backend_s < 0.1 <= time.monotonic() - begun


async def test_the_deadline_ends_it() -> None:
    with pytest.raises(DeadlineExceeded, match="`m`: the caller's deadline passed"):
        await take(stored(0, 3_600_000, 0), time.monotonic() + 0.01)
