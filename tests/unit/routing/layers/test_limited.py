"""A call holds its permit exactly as long as its stream is open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.errors import Overloaded, WorkerDied
from polyroute.core.event import Finished, Started
from polyroute.core.request import Request
from polyroute.routing.layers.limited import Limited
from polyroute.routing.permits import Permits
from polyroute.routing.streams import generator

CALL = Call(Request(prompt="a b c"), "r1")


async def test_the_permit_is_held_until_the_stream_closes() -> None:
    permits, backend = Permits("m", 1, 0, 60), EchoBackend("m")
    async with aclosing(generator(Limited(backend.stream, permits)(CALL))) as events:
        async for _ in events:
            assert (permits.in_flight, backend.open) == (1, 1)
            with pytest.raises(Overloaded):
                await permits.acquire()
    assert (permits.in_flight, backend.open) == (0, 0)


async def test_leaving_early_closes_what_is_below_and_then_gives_the_permit_back() -> None:
    permits, backend = Permits("m", 1, 0, 60), EchoBackend("m")
    async with aclosing(generator(Limited(backend.stream, permits)(CALL))) as events:
        assert isinstance(await anext(events), Started)
    assert (permits.in_flight, backend.open, backend.closed_early) == (0, 0, 1)


async def test_an_error_gives_the_permit_back(take: Callable[..., Any]) -> None:
    permits = Permits("m", 1, 0, 60)
    backend = EchoBackend("m", script=Script(error=WorkerDied("gone"), error_after=1))
    with pytest.raises(WorkerDied):
        await take(Limited(backend.stream, permits))
    assert permits.in_flight == 0


async def test_a_cancelled_call_gives_the_permit_back(take: Callable[..., Any], until: Callable[..., Any]) -> None:
    permits, backend = Permits("m", 1, 0, 60), EchoBackend("m", script=Script(gate=asyncio.Event()))
    task = asyncio.create_task(take(Limited(backend.stream, permits)))
    await until(lambda: backend.open)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (permits.in_flight, backend.open) == (0, 0)


async def test_the_end_says_how_long_the_queue_and_the_model_took(
    take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    now = 0.0

    def clock() -> float:
        return now

    async def pause(_: int) -> None:
        nonlocal now
        now += 2.0

    permits = Permits("m", 1, 1, 60)
    limited = Limited(EchoBackend("m", script=Script(pause=pause)).stream, permits, clock=clock)
    held = await permits.acquire()
    task = asyncio.create_task(take(limited))
    await until(lambda: permits.queued)
    now += 5.0
    held.release()
    finished = (await task)[-1]
    assert isinstance(finished, Finished)
    assert (finished.timing.queue_s, finished.timing.backend_s) == (5.0, 8.0)


async def test_the_time_that_the_consumer_takes_is_not_the_models() -> None:
    now = 0.0
    limited = Limited(EchoBackend("m").stream, Permits("m", 1, 0, 60), clock=lambda: now)
    async with aclosing(generator(limited(CALL))) as events:
        seen = []
        async for event in events:
            seen.append(event)
            now += 100.0
    assert isinstance(seen[-1], Finished)
    assert seen[-1].timing.backend_s == 0.0
