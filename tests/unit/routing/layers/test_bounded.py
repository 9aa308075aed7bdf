"""A model that is late fails its call, and nobody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.errors import DeadlineExceeded
from polyroute.core.event import Event, Finished, FinishReason
from polyroute.core.request import Request
from polyroute.routing.layers.bounded import Bounded
from polyroute.routing.streams import generator

REQUEST = Request(prompt="a b c")


def hangs(at: int) -> EchoBackend:
    return EchoBackend("m", script=Script(gate=asyncio.Event(), gate_after=at))


async def test_an_answer_that_takes_too_long_is_cut_off(take: Callable[..., Any]) -> None:
    backend = hangs(2)
    with pytest.raises(DeadlineExceeded, match=r"`m`: .* within its timeout of 0.01 s"):
        await take(Bounded(backend.stream, "m", timeout_s=0.01))
    assert backend.open == 0


@pytest.mark.parametrize("at", [0, 2])
async def test_the_callers_deadline_is_kept(at: int, take: Callable[..., Any]) -> None:
    backend = hangs(at)
    call = Call(REQUEST, "r1", deadline=time.monotonic() + 0.05)
    with pytest.raises(DeadlineExceeded, match="the caller's deadline"):
        await take(Bounded(backend.stream, "m", timeout_s=60), call)
    assert backend.open == 0


async def test_without_limits_nothing_is_cut(take: Callable[..., Any]) -> None:
    assert isinstance((await take(Bounded(EchoBackend("m").stream, "m")))[-1], Finished)


async def test_a_timeout_inside_the_model_is_not_taken_for_this_one(take: Callable[..., Any]) -> None:
    async def broken(_: Call) -> AsyncIterator[Event]:
        raise TimeoutError("of its own")
        yield

    with pytest.raises(TimeoutError, match="of its own"):
        await take(Bounded(broken, "m", timeout_s=60))


async def test_no_timeout_fires_in_the_consumer() -> None:
    """The limit passes while the consumer has the event: the consumer's own await is left alone."""
    bounded = Bounded(hangs(1).stream, "m", timeout_s=0.01)
    async with aclosing(generator(bounded(Call(REQUEST, "r1")))) as events:
        await anext(events)
        await asyncio.sleep(0.05)
        await anext(events)
        with pytest.raises(DeadlineExceeded):
            await anext(events)


async def test_a_limit_that_has_passed_stays_so() -> None:
    """What is there is given after it, and each wait ends at once; the consumer's task goes on."""
    backend = EchoBackend("m", script=Script(texts=["a"] * 50))
    bounded = Bounded(backend.stream, "m", timeout_s=0.01)
    async with aclosing(generator(bounded(Call(REQUEST, "r1")))) as events:
        await anext(events)
        await asyncio.sleep(0.05)
        assert len([event async for event in events]) == 51, "nobody had to wait for them"
        await asyncio.sleep(0.01)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_who_is_cancelled_is_not_late() -> None:
    call = Call(REQUEST, "r1", deadline=time.monotonic() + 3600)

    async def waits() -> None:
        async with aclosing(generator(Bounded(hangs(0).stream, "m")(call))) as events:
            await anext(events)

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_ends_in_order_though_time_is_up_leaves_nothing_on_the_task() -> None:
    """Whoever waits in the same task afterwards, for another call over one connection, is not taken for cancelled."""

    async def stubborn(_: Call) -> AsyncIterator[Event]:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        yield Finished(FinishReason.STOP)

    async with aclosing(generator(Bounded(stubborn, "m", timeout_s=0.01)(Call(REQUEST, "r1")))) as events:
        assert [type(event) async for event in events] == [Finished]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("most", [None, 2])
async def test_a_call_that_is_over_has_no_timer(
    most: int | None, take: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()
    later = loop.call_later

    def noted(*args: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(later(*args, **options))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", noted)
    await take(Bounded(EchoBackend("m").stream, "m", timeout_s=3600), most=most)
    assert timers
    assert all(timer.cancelled() for timer in timers)
