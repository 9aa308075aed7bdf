"""Warm pools with real worker processes: cold calls, deaths at every stage, and memory that comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import grpc
import grpc.aio
import pytest

from polyroute.backends.echo import EchoBackend
from polyroute.backends.local.backend import LocalBackend
from polyroute.backends.local.memory import Memory
from polyroute.backends.local.scale import PRESSED_S
from polyroute.backends.local.warm import WarmPool
from polyroute.backends.pool import Pool
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.config import CacheConfig, Config, LocalConfig
from polyroute.core.request import Request, Sampling
from polyroute.v1 import admin_pb2 as admin
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1 import models_pb2 as models
from tests.integration.grpc_serving import WAIT_S, Serving, refused, refused_stream, serving, settings_for, until
from tests.integration.worker_processes import workers
from tests.tiny import save

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds worker processes in /proc")

SHORT = pb.GenerateRequest(prompt="go on", max_tokens=3)
LONG = pb.GenerateRequest(prompt="go on", max_tokens=20_000, temperature=1.0, seed=3, stop=["never there"])
LOCAL = {"id": "x", "type": "local", "device": "cpu", "kv_cache_memory": "16MiB"}


@dataclass(slots=True)
class Site:
    """A server with the local model `x`, which nothing loads but calls."""

    serving: Serving

    async def model(self) -> models.Model:
        return (await self.serving.models.GetModel(models.GetModelRequest(model="x"), timeout=WAIT_S)).model

    async def pid(self) -> int:
        (replica,) = (await self.model()).replicas
        assert replica.name == "x#0"
        return int(replica.detail.split(",")[0].removeprefix("pid "))

    def value(self, name: str, **labels: str) -> float | None:
        return self.serving.server.registry.get_sample_value(name, labels)

    @property
    def in_flight(self) -> int:
        return self.serving.server.gateway.model("x").status.replicas[0].in_flight

    async def idle(self) -> None:
        """Every permit is free, and nobody waits for one."""
        await until(lambda: self.serving.server.gateway.model("x").in_flight == 0)
        assert self.serving.server.gateway.model("x").queued == 0


@asynccontextmanager
async def site(folder: Path, cache_dir: Path) -> AsyncIterator[Site]:
    config = LocalConfig.model_validate({**LOCAL, "source": str(folder), "warm": {"min": 0}})
    whole = Config(models=(config,), cache=CacheConfig(mode="off"))
    settings = replace(settings_for(EchoBackend("x"), folder=cache_dir), config=whole)
    async with serving(folder=cache_dir, settings=settings) as at:
        yield Site(at)


def at_most(number: int) -> bool:
    """Where nothing has come for so long, the last replica may follow the one before it within a moment."""
    return len(workers()) <= number


async def test_the_life_of_a_pool(tmp_path: Path) -> None:
    """One server for all of these, because a worker takes seconds to start."""
    tasks = asyncio.all_tasks()
    folder = save("llama", tmp_path / "model", max_position_embeddings=65536)  # room for an answer that takes long
    async with site(folder, tmp_path) as at:
        assert (await at.model()).state == models.MODEL_STATE_COLD
        await many_cold_calls_share_one_load(at)
        await a_worker_killed_while_decoding_ends_its_answer(at)
        await a_worker_killed_before_it_answers_fails_nobody(at)
        await an_unload_frees_the_process(at)
        await a_worker_killed_while_loading_tells_who_waits(at)
        await a_model_is_loaded_when_an_operator_says_so(at)
        await at.idle()
    assert workers() == set()
    await until(lambda: asyncio.all_tasks() <= tasks | {asyncio.current_task()})


async def many_cold_calls_share_one_load(at: Site) -> None:
    answers = [asyncio.ensure_future(at.serving.inference.Generate(SHORT, timeout=WAIT_S)) for _ in range(20)]
    await until(lambda: len(workers()) == 1)
    texts = {answer.text for answer in await asyncio.gather(*answers)}
    assert len(texts) == 1
    assert len(workers()) == 1
    assert at.value("polyroute_model_loads_total", model="x", outcome="ok") == 1
    assert at.value("polyroute_replicas", model="x", state="warm") == 1
    held = at.value("polyroute_memory_held_bytes", device="cpu")
    budget = at.value("polyroute_memory_budget_bytes", device="cpu")
    assert held is not None
    assert budget is not None
    assert 50 << 20 < held < budget


async def a_worker_killed_while_decoding_ends_its_answer(at: Site) -> None:
    pid = await at.pid()
    events = aiter(at.serving.inference.StreamGenerate(LONG, timeout=WAIT_S))
    assert (await anext(events)).WhichOneof("event") == "start"
    os.kill(pid, signal.SIGKILL)
    found = await refused_stream(events)
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "WORKER_DIED")
    assert "SIGKILL" in found.message
    await at.idle()
    await at.serving.inference.Generate(SHORT, timeout=WAIT_S)  # waits for the worker that replaces it
    assert at.value("polyroute_worker_restarts_total", model="x") == 1
    assert len(workers()) == 1


async def a_worker_killed_before_it_answers_fails_nobody(at: Site) -> None:
    pid = await at.pid()
    os.kill(pid, signal.SIGSTOP)  # so that it cannot begin to answer
    answers = [asyncio.ensure_future(at.serving.inference.Generate(SHORT, timeout=WAIT_S)) for _ in range(8)]
    await until(lambda: at.in_flight == 8)
    os.kill(pid, signal.SIGKILL)
    assert all(answer.text for answer in await asyncio.gather(*answers))
    assert at.value("polyroute_worker_restarts_total", model="x") == 2
    await at.idle()


async def an_unload_frees_the_process(at: Site) -> None:
    unloaded = await at.serving.admin.UnloadModel(admin.UnloadModelRequest(model="x"), timeout=WAIT_S)
    assert unloaded.model.state == models.MODEL_STATE_COLD
    assert unloaded.model.version  # known while it is cold
    assert list(unloaded.model.replicas) == []
    assert workers() == set()
    assert at.value("polyroute_memory_held_bytes", device="cpu") == 0


async def a_worker_killed_while_loading_tells_who_waits(at: Site) -> None:
    waiting = [asyncio.ensure_future(at.serving.inference.Generate(SHORT, timeout=WAIT_S)) for _ in range(2)]
    await until(lambda: len(workers()) == 1)
    os.kill(workers().pop(), signal.SIGKILL)
    for answer in waiting:
        found = await refused(answer)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_FAILED")
        assert "its worker process ended while it loaded (SIGKILL" in found.message
    soon = await refused(at.serving.inference.Generate(SHORT, timeout=WAIT_S))  # it is too early to try again
    assert soon.reason == "MODEL_FAILED"
    assert (await at.model()).state == models.MODEL_STATE_FAILED
    assert at.value("polyroute_model_loads_total", model="x", outcome="MODEL_FAILED") == 1
    await at.idle()
    await until(lambda: workers() == set())


async def a_model_is_loaded_when_an_operator_says_so(at: Site) -> None:
    loaded = await at.serving.admin.LoadModel(admin.LoadModelRequest(model="x", wait=True), timeout=WAIT_S)
    assert loaded.model.state == models.MODEL_STATE_WARM
    assert (await at.serving.inference.Generate(SHORT, timeout=WAIT_S)).text


async def test_memory_comes_back_from_the_idle_and_the_evicted(tiny_llama: Path, tmp_path: Path) -> None:
    """Two models that do not fit together, the second with as many replicas as its queue asks for."""
    memory = Memory(1 << 40)
    clock, queued = [0.0], [0]

    def pool(model: str, most: int) -> WarmPool:
        options = {"id": model, "source": str(tiny_llama), "warm": {"max": most, "idle_unload": 900}}
        config = LocalConfig.model_validate({**LOCAL, **options})

        def replica(
            config: LocalConfig, name: str, device: str, kv_cache_most: int | None, on_change: Callable[[], None]
        ) -> LocalBackend:
            return LocalBackend(config, cache_dir=tmp_path, replica=name, on_change=on_change)

        return WarmPool(config, Pool(config), replica, memory, queued=lambda: queued[0], clock=lambda: clock[0])

    async def answer(of: WarmPool) -> None:
        call = Call(Request(prompt="a", sampling=Sampling(max_tokens=2)), "r")
        async with asyncio.timeout(WAIT_S):
            assert [event async for event in of.stream(call)]

    first, second = pool("first", 1), pool("second", 2)
    try:
        await answer(first)
        (alone,) = workers()
        held = memory.held("cpu")
        memory.resize(int(held * 1.5))
        second._replicas.weights_bytes = first._replicas.weights_bytes
        clock[0] += 1
        await answer(second)
        assert first.status().state is ModelState.COLD
        assert len(workers()) == 1
        assert alone not in workers()

        memory.resize(3 * held)
        queued[0] = 1
        second.look()
        clock[0] += PRESSED_S
        second.look()
        await until(lambda: second.status().state is ModelState.WARM and len(second._replicas.warm) == 2)
        assert len(workers()) == 2
        assert {replica.name for replica in second.status().replicas} == {"second#0", "second#1"}
        queued[0] = 0
        for left in (1, 0):
            second.look()
            clock[0] += 900
            second.look()
            await until(partial(at_most, left))
        await until(lambda: memory.held("cpu") == 0)
        assert second.status().state is ModelState.COLD
    finally:
        await first.stop()
        await second.stop()
    assert workers() == set()
