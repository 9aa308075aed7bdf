"""Far more calls than permits, and callers that leave: everybody gets an answer or a clear refusal, nothing stays.

The great numbers call the gateway in the process: 10,000 calls over sockets would mostly exercise the test's client.
What sockets add (status, details, cancellation) is shown with fewer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.config import CacheConfig, Config, RemoteConfig
from polyroute.core.errors import DeadlineExceeded, Overloaded
from polyroute.core.event import Token, parts_of
from polyroute.core.request import Request, RoutingOptions
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import WAIT_S, Serving, refusal_of, serving, settings_for, until

PERMITS = 100
PROMPT = "to be answered"


@asynccontextmanager
async def overloaded(backend: EchoBackend, folder: Path, *, permits: int, max_queue: int) -> AsyncIterator[Serving]:
    """A server whose one model has so many permits; afterwards nothing of any call is left."""
    before = asyncio.all_tasks()
    model = RemoteConfig.model_validate(
        {
            "id": "m",
            "type": "remote",
            "base_url": "http://127.0.0.1:9",
            "max_concurrency": permits,
            "max_queue": max_queue,
            "queue_timeout": WAIT_S,
        }
    )
    settings = replace(
        settings_for(backend, folder=folder), config=Config(models=(model,), cache=CacheConfig(mode="off"))
    )
    async with serving(backend, folder=folder, settings=settings) as at:
        yield at
        await until(lambda: backend.open == 0 and in_flight(at) == 0)
        model_now = at.server.gateway.model("m")
        assert (model_now.in_flight, model_now.queued) == (0, 0)
        permits_of = at.server.gateway._snapshot.deployments["m"].permits
        assert repr(permits_of._queue) == "<FairQueue 0 of 0 callers, most 0>"
    await until(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})


def in_flight(at: Serving) -> float:
    return at.server.registry.get_sample_value("polyroute_requests_in_flight") or 0.0


def counted(at: Serving) -> Counter[str]:
    """How many calls ended in which way, by the server's own count."""
    (requests,) = [metric for metric in at.server.registry.collect() if metric.name == "polyroute_requests"]
    ends: Counter[str] = Counter()
    for sample in requests.samples:
        ends[sample.labels["outcome"]] += int(sample.value)
    return ends


async def ask(at: Serving, user: str, deadline: float | None = None) -> str:
    """How a call of the gateway ended: `ok` or the error's reason; an answer is whole."""
    call = Call(Request(prompt=PROMPT, routing=RoutingOptions(user=user)), "r", deadline=deadline)
    try:
        events = at.server.gateway.generate(call)
        texts = [part.text async for event in events for part in parts_of(event) if isinstance(part, Token)]
    except (Overloaded, DeadlineExceeded) as error:
        refused = error
    else:
        assert "".join(texts) == PROMPT
        return "ok"
    if isinstance(refused, Overloaded):
        assert 0.1 <= (refused.retry_delay_s or 0) <= 60
    else:
        assert deadline is not None
        assert time.monotonic() >= deadline
    return refused.reason


async def test_ten_thousand_calls_against_a_hundred_permits(tmp_path: Path) -> None:
    """The model stands still until every deadline has passed, so nobody leaves the queue but by the deadline."""
    gate, max_queue = asyncio.Event(), 4_000
    backend = EchoBackend("m", script=Script(gate=gate))
    async with overloaded(backend, tmp_path, permits=PERMITS, max_queue=max_queue) as at:
        soon = time.monotonic() + 0.5
        hurried = [asyncio.create_task(ask(at, f"hurried {i % 50}", soon)) for i in range(2_000)]
        noisy = [asyncio.create_task(ask(at, "noisy")) for _ in range(7_500)]
        quiet = [asyncio.create_task(ask(at, f"quiet {i % 100}")) for i in range(500)]
        everyone = [*hurried, *noisy, *quiet]
        while not all(task.done() for task in hurried[PERMITS:]):
            await asyncio.sleep(0.01)
            model = at.server.gateway.model("m")
            assert backend.open <= model.in_flight <= PERMITS
            assert model.queued <= max_queue
        waited = Counter(task.result() for task in hurried[PERMITS:])
        assert set(waited) <= {"DEADLINE_EXCEEDED", "OVERLOADED"}
        assert waited["DEADLINE_EXCEEDED"]
        assert not any(task.done() for task in quiet), "a quiet caller was refused for what a noisy one sent"
        gate.set()
        ends = Counter(await asyncio.gather(*everyone))
        assert ends.total() == 10_000
        assert set(ends) == {"ok", "OVERLOADED", "DEADLINE_EXCEEDED"}
        assert {task.result() for task in quiet} == {"ok"}
        assert counted(at) == ends
        assert ends["ok"] == backend.completed


async def test_half_of_two_thousand_callers_leave_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(11)

    async def works(_: int) -> None:
        await asyncio.sleep(chance.random() * 0.02)

    backend = EchoBackend("m", script=Script(pause=works))
    async with overloaded(backend, tmp_path, permits=PERMITS, max_queue=2_000) as at:
        tasks = [asyncio.create_task(ask(at, f"user {i % 20}")) for i in range(2_000)]
        leaving = chance.sample(tasks, 1_000)
        for task in leaving:
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.002)
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        stayed = [end for task, end in zip(tasks, ends, strict=True) if task not in leaving]
        left = Counter(type(end).__name__ for task, end in zip(tasks, ends, strict=True) if task in leaving)
        assert Counter(stayed) == {"ok": 1_000}
        assert left["CancelledError"]
        assert set(left) <= {"CancelledError", "str"}  # an answer may be complete before its caller leaves
        assert backend.completed >= 1_000
        assert backend.closed_early, "some left while they were being answered"
        assert len(backend.calls) == backend.completed + backend.closed_early


@pytest.mark.parametrize("leaves", [False, True])
async def test_over_sockets(tmp_path: Path, leaves: bool) -> None:
    """300 streams against 10 permits; every second one of those that wait leaves, or none does."""
    gate = asyncio.Event()
    backend = EchoBackend("m", script=Script(gate=gate, gate_after=1))

    async with overloaded(backend, tmp_path, permits=10, max_queue=100) as at:

        async def ask_over_grpc(number: int) -> str:
            routing = pb.RoutingOptions(user=f"user {number % 7}")
            stream = at.inference.StreamGenerate(pb.GenerateRequest(prompt=PROMPT, routing=routing), timeout=WAIT_S)
            with suppress(asyncio.CancelledError):
                try:
                    return "".join([event.delta.text async for event in stream])
                except grpc.aio.AioRpcError as error:
                    refused = refusal_of(error)
                    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
                    pushback_ms = int(refused.trailers["grpc-retry-pushback-ms"])
                    assert pushback_ms == -1 or 100 <= pushback_ms <= 30_000
                    return refused.reason
            return "left"

        tasks = [asyncio.create_task(ask_over_grpc(i)) for i in range(300)]
        await until(lambda: sum(task.done() for task in tasks) == 190)
        model = at.server.gateway.model("m")
        assert (model.in_flight, model.queued, backend.open) == (10, 100, 10)
        here = [task for task in tasks if not task.done()]
        gone = here[::2] if leaves else []
        for task in gone:
            task.cancel()
        await until(lambda: at.server.gateway.model("m").queued <= 100 - len(gone) + 10)
        gate.set()
        ends = Counter(await asyncio.gather(*tasks))
        assert ends == Counter({"OVERLOADED": 190, PROMPT: 110 - len(gone), "left": len(gone)}) - Counter()
