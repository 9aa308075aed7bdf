"""A local model behind several router processes: one copy of it, whichever process a call comes to."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from polyroute.v1 import admin_pb2, models_pb2
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from polyroute.v1.models_pb2_grpc import ModelServiceStub
from tests.integration.fronts_serving import Fronts, fronts
from tests.integration.grpc_serving import WAIT_S, until
from tests.tiny import save

ENDLESS = 400
"""Tokens of an answer that takes long enough to be broken into."""


def workers_of(server: Fronts) -> int:
    """How many processes of models there are."""
    children = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        children += parent == server.process.pid and b"polyroute.backends.local.worker" in command
    return children


def asked(prompt: str, max_tokens: int = 8) -> pb.GenerateRequest:
    return pb.GenerateRequest(model="m", prompt=prompt, max_tokens=max_tokens, temperature=0)


async def in_flight(server: Fronts) -> int:
    """Calls at the replica, as any of the processes tells it."""
    return int(await server.metric("polyroute_replica_in_flight", deployment="m"))


async def test_the_life_of_a_shared_model(tmp_path: Path) -> None:
    save("llama", tmp_path / "tiny", max_position_embeddings=65536)
    model = f"{{id: m, type: local, source: {tmp_path / 'tiny'}, kv_cache_memory: 64MiB}}"
    (tmp_path / "models.yaml").write_text(f"cache: {{mode: 'off'}}\nmodels:\n  - {model}\n")
    async with fronts(tmp_path, "--config", str(tmp_path / "models.yaml")) as server:
        stubs = await server.by_process()
        assert workers_of(server) == 1
        await all_give_the_same(server, stubs)
        await a_front_that_dies_ends_its_calls(server, stubs)
        await a_worker_that_dies_is_told_as_ever(server)
        await the_operator_acts_on_all(server)
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(server.process.wait(), WAIT_S) == 0
    assert workers_of(server) == 0


async def all_give_the_same(server: Fronts, stubs: dict[int, InferenceServiceStub]) -> None:
    answers = [await stub.Generate(asked("The quick brown"), timeout=WAIT_S) for stub in stubs.values()]
    assert len({(answer.text, answer.route.version, answer.usage.completion_tokens) for answer in answers}) == 1
    assert {answer.route.replica for answer in answers} == {"m#0"}
    assert answers[0].route.version
    for stub in stubs.values():
        events = [event async for event in stub.StreamGenerate(asked("The quick brown"), timeout=WAIT_S)]
        assert "".join(event.delta.text for event in events) == answers[0].text
        count = await stub.CountTokens(pb.CountTokensRequest(model="m", prompt="The quick"), timeout=WAIT_S)
        assert (count.prompt_tokens > 0, count.context_length) == (True, 65536)
        with pytest.raises(grpc.aio.AioRpcError, match="prompt"):
            await stub.Generate(asked("word " * 70_000), timeout=WAIT_S)
    models = await server.get("/v1/models")
    assert '"state":"warm"' in models.replace(" ", "")
    assert await server.metric("polyroute_replicas", model="m", state="warm") == 1


async def a_front_that_dies_ends_its_calls(server: Fronts, stubs: dict[int, InferenceServiceStub]) -> None:
    streams = {number: aiter(stub.StreamGenerate(asked("The", ENDLESS))) for number, stub in stubs.items()}
    for stream in streams.values():
        await anext(stream)
    died = len(server.logged("front.died"))
    os.kill(server.pids[0], signal.SIGKILL)
    with pytest.raises(grpc.aio.AioRpcError) as lost:
        async for _ in streams[0]:
            pass
    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
    events = [event async for event in streams[1]]
    assert events[-1].end.usage.completion_tokens == ENDLESS
    await until(lambda: len(server.logged("front.died")) > died)
    await until(lambda: len(server.logged("front.listening")) == 3 + died)
    assert await in_flight(server) == 0
    assert (await server.metric("polyroute_permits_in_use", deployment="m"), workers_of(server)) == (0, 1)


async def the_operator_acts_on_all(server: Fronts) -> None:
    admin = await server.admin()
    unloaded = await admin.UnloadModel(
        admin_pb2.UnloadModelRequest(model="m", grace=Duration(seconds=10)), timeout=WAIT_S
    )
    assert unloaded.model.state == models_pb2.MODEL_STATE_COLD
    assert workers_of(server) == 0
    for number in range(4):  # whichever process answers
        found = ModelServiceStub(await server.channel())
        async with asyncio.timeout(WAIT_S):
            while True:
                model = (await found.GetModel(models_pb2.GetModelRequest(model="m"), timeout=WAIT_S)).model
                if model.state == models_pb2.MODEL_STATE_COLD:
                    break
        assert not model.replicas, number


async def a_worker_that_dies_is_told_as_ever(server: Fronts) -> None:
    stub = InferenceServiceStub(await server.channel())
    stream = aiter(stub.StreamGenerate(asked("The", ENDLESS)))
    await anext(stream)
    worker = int((await server.get("/v1/models")).partition("pid ")[2].partition(",")[0])
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(grpc.aio.AioRpcError, match="its worker process ended") as died:
        async for _ in stream:
            pass
    assert died.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (await stub.Generate(asked("The"), timeout=WAIT_S)).text  # by the one that takes its place
    assert await server.metric("polyroute_worker_restarts_total", model="m") == 1
