"""A call holds its permit exactly as long as its stream is open."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.errors import DeadlineExceeded, FirstTokenTimeout, Overloaded, PolyrouteError, WorkerDied
from polyroute.core.event import Finished, Started
from polyroute.core.request import Request, RoutingOptions
from polyroute.core.trace import SAMPLED, Span, Trace
from polyroute.routing.adaptive import AdaptiveLimit
from polyroute.routing.layers.limited import Limited, caller_of
from polyroute.routing.metrics import Metrics
from polyroute.routing.permits import Permits
from polyroute.routing.streams import generator

CALL = Call(Request(prompt="a b c"), "r1")


async def test_the_permit_is_held_until_the_stream_closes(metrics: Metrics) -> None:
    permits, backend = Permits("m", 1, 0, 60), EchoBackend("m")
    async with aclosing(generator(Limited(backend.stream, permits, metrics)(CALL))) as events:
        async for _ in events:
            assert (permits.in_flight, backend.open) == (1, 1)
            with pytest.raises(Overloaded):
                await permits.acquire()
    assert (permits.in_flight, backend.open) == (0, 0)


async def test_leaving_early_closes_what_is_below_and_then_gives_the_permit_back(metrics: Metrics) -> None:
    permits, backend = Permits("m", 1, 0, 60), EchoBackend("m")
    async with aclosing(generator(Limited(backend.stream, permits, metrics)(CALL))) as events:
        assert isinstance(await anext(events), Started)
    assert (permits.in_flight, backend.open, backend.closed_early) == (0, 0, 1)


async def test_an_error_gives_the_permit_back(metrics: Metrics, take: Callable[..., Any]) -> None:
    permits = Permits("m", 1, 0, 60)
    backend = EchoBackend("m", script=Script(error=WorkerDied("gone"), error_after=1))
    with pytest.raises(WorkerDied):
        await take(Limited(backend.stream, permits, metrics))
    assert permits.in_flight == 0


async def test_a_cancelled_call_gives_the_permit_back(
    metrics: Metrics, take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    permits, backend = Permits("m", 1, 0, 60), EchoBackend("m", script=Script(gate=asyncio.Event()))
    task = asyncio.create_task(take(Limited(backend.stream, permits, metrics)))
    await until(lambda: backend.open)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (permits.in_flight, backend.open) == (0, 0)


async def test_the_end_says_how_long_the_queue_and_the_model_took(
    metrics: Metrics, take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    now = 0.0

    def clock() -> float:
        return now

    async def pause(_: int) -> None:
        nonlocal now
        now += 2.0

    permits = Permits("m", 1, 1, 60)
    limited = Limited(EchoBackend("m", script=Script(pause=pause)).stream, permits, metrics, clock=clock)
    held = await permits.acquire()
    task = asyncio.create_task(take(limited))
    await until(lambda: permits.queued)
    now += 5.0
    held.release()
    finished = (await task)[-1]
    assert isinstance(finished, Finished)
    assert (finished.timing.queue_s, finished.timing.backend_s) == (5.0, 8.0)


async def test_the_time_that_the_consumer_takes_is_not_the_models(metrics: Metrics) -> None:
    now = 0.0
    limited = Limited(EchoBackend("m").stream, Permits("m", 1, 0, 60), metrics, clock=lambda: now)
    async with aclosing(generator(limited(CALL))) as events:
        seen = []
        async for event in events:
            seen.append(event)
            now += 100.0
    assert isinstance(seen[-1], Finished)
    assert seen[-1].timing.backend_s == 0.0


@pytest.mark.parametrize(
    ("routing", "caller"),
    [
        ({"user": "ada", "session": "s", "affinity_key": "k"}, "user:ada"),
        ({"session": "s", "affinity_key": "k"}, "session:s"),
        ({"affinity_key": "k"}, "affinity_key:k"),
        ({}, ""),
    ],
)
def test_a_caller_is_who_the_request_names(routing: dict[str, str], caller: str) -> None:
    assert caller_of(Call(Request(prompt="a", routing=RoutingOptions(**routing)), "r1")) == caller


async def test_callers_take_turns(metrics: Metrics, take: Callable[..., Any], until: Callable[..., Any]) -> None:
    permits, backend = Permits("m", 1, 10, 60), EchoBackend("m")
    limited, held = Limited(backend.stream, permits, metrics), await permits.acquire()
    tasks = []
    for i, user in enumerate(("ada", "ada", "ada", "bob")):
        call = Call(Request(prompt="a", routing=RoutingOptions(user=user)), f"r{i}")
        tasks.append(asyncio.create_task(take(limited, call)))
        await until(lambda: permits.queued == len(tasks))
    held.release()
    await asyncio.gather(*tasks)
    assert [call.request_id for call in backend.calls] == ["r0", "r3", "r1", "r2"]


async def test_waits_and_refusals_are_counted(
    metrics: Metrics, registry: CollectorRegistry, take: Callable[..., Any]
) -> None:
    permits = Permits("m", 1, 0, 60)
    limited = Limited(EchoBackend("m").stream, permits, metrics)
    await take(limited)
    held = await permits.acquire()
    with pytest.raises(Overloaded):
        await take(limited)
    with pytest.raises(DeadlineExceeded):
        await take(limited, Call(CALL.request, "r1", deadline=time.monotonic() - 1))
    held.release()
    count = registry.get_sample_value
    assert count("polyroute_queue_seconds_count", {"deployment": "m"}) == 1
    assert count("polyroute_refusals_total", {"deployment": "m", "refusal": "queue_full"}) == 1
    assert count("polyroute_refusals_total", {"deployment": "m", "refusal": "deadline"}) == 1


@pytest.mark.parametrize(
    ("error", "left"), [(Overloaded("429"), 9), (FirstTokenTimeout("slow"), 9), (WorkerDied("gone"), 10), (None, 10)]
)
async def test_an_adaptive_limit_learns_of_overload_and_of_nothing_else(
    metrics: Metrics, take: Callable[..., Any], error: PolyrouteError | None, left: int
) -> None:
    limit = AdaptiveLimit(10, 10)
    limit.least = 1
    limited = Limited(EchoBackend("m", script=Script(error=error)).stream, Permits("m", limit, 0, 60), metrics)
    with contextlib.suppress(PolyrouteError):
        await take(limited)
    assert limit() == left


async def test_an_adaptive_limit_learns_when_answers_begin(metrics: Metrics, take: Callable[..., Any]) -> None:
    limit = AdaptiveLimit(1, 64)
    limited = Limited(EchoBackend("m").stream, Permits("m", limit, 0, 60), metrics)
    for _ in range(16):
        await take(limited)
    assert limit.base_s is not None


@pytest.mark.parametrize(("waited_s", "names"), [(0.5, ["queue"]), (0.0, [])])
async def test_a_wait_is_a_span_of_a_call_that_is_sampled(
    metrics: Metrics, take: Callable[..., Any], waited_s: float, names: list[str]
) -> None:
    spans: list[Span] = []
    trace = Trace("a" * 32, "", SAMPLED)
    root = Span("call", "server", trace, spans.append, {})
    times = iter([10.0, 10.0 + waited_s])
    limited = Limited(EchoBackend("m").stream, Permits("m", 1, 0, 60), metrics, clock=lambda: next(times, 20.0))
    await take(limited, replace(CALL, trace=trace.under(root)))
    assert [span.name for span in spans] == names
    for span in spans:
        assert (span.parent_id, span.attributes) == (root.span_id, {"polyroute.queue.wait": waited_s})


async def test_a_wait_in_vain_is_a_span_that_says_so(metrics: Metrics, take: Callable[..., Any]) -> None:
    spans: list[Span] = []
    trace = Trace("a" * 32, "", SAMPLED)
    call = replace(CALL, trace=trace.under(Span("call", "server", trace, spans.append, {})))
    permits = Permits("m", 1, 1, 60)
    held = await permits.acquire("", None)
    times = iter([10.0, 10.5, 20.0, 20.5])
    limited = Limited(EchoBackend("m").stream, permits, metrics, clock=lambda: next(times))
    with pytest.raises(DeadlineExceeded):
        await take(limited, replace(call, deadline=time.monotonic()))
    waiting = asyncio.create_task(take(limited, call))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    held.release()
    late, left = spans
    assert (late.name, late.attributes["error.type"]) == ("queue", "DEADLINE_EXCEEDED")
    assert (left.attributes["polyroute.outcome"], left.error) == ("CANCELLED", None)
