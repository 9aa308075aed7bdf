"""Reloads while real workers and real peers answer: what runs a model goes on for as long as it is the same."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import yaml

from polyroute.core.backend import ModelState
from polyroute.server.reload import Reloaded
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import WAIT_S, Serving, refused, until
from tests.integration.peers import SSE, Connection, PeerRequest, ScriptedPeer, answering, chunk, data, head, models
from tests.integration.peers import streaming as streaming_of
from tests.integration.test_local_warm import LOCAL, LONG
from tests.integration.test_reload_load import under_test
from tests.integration.worker_processes import workers
from tests.tiny import save

COMPLETIONS = "/v1/completions"
BEGIN = data({"choices": [{"index": 0, "text": "fine"}]})
END = data({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
FINE = streaming_of(BEGIN, END)
ERROR = answering(b"broken", kind="text/plain", status="500 Internal Server Error")


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    """A peer that answers with `fine`."""
    peer = ScriptedPeer({"/v1/models": models(), COMPLETIONS: FINE})
    await peer.listen()
    yield peer
    await peer.hang_up()


def remote(*peers: ScriptedPeer, **options: Any) -> dict[str, Any]:
    urls = [peer.url for peer in peers]
    return {"id": "m", "type": "remote", "base_urls": urls, "api": "openai", **options}


class File:
    """A `models.yaml`, and the server that runs by it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "models.yaml"

    def write(self, *all_models: dict[str, Any], **more: Any) -> None:
        whole = {"models": list(all_models), "default_model": "m", "cache": {"mode": "off"}, **more}
        self.path.write_text(yaml.safe_dump(whole))

    async def reload(self, at: Serving, *all_models: dict[str, Any], **more: Any) -> Reloaded:
        self.write(*all_models, **more)
        done = await at.server.reload.reload("call")
        assert not done.problems
        return done


def pid_of(at: Serving, model: str) -> int:
    (replica,) = at.server.gateway.model(model).status.replicas
    return int(replica.detail.split(",")[0].removeprefix("pid "))


@pytest.mark.skipif(sys.platform != "linux", reason="finds worker processes in /proc")
async def test_a_worker_goes_on_until_its_model_is_gone(peer: ScriptedPeer, tmp_path: Path) -> None:
    """And while it is being loaded, calls of a route that does not wait are answered by the peer behind it."""
    folder = save("llama", tmp_path / "model", max_position_embeddings=65536)  # room for an answer that takes long
    local = {**LOCAL, "source": str(folder), "warm": {"min": 0, "max": 1}}
    route = {"id": "r", "model": "x", "fallback": ["m"], "when_cold": "fallback"}
    file, asked = File(tmp_path), pb.GenerateRequest(model="r", prompt="go on", max_tokens=3)
    file.write(remote(peer), local, routes=[route])
    async with under_test(tmp_path, file.path) as at:
        away = await at.inference.Generate(asked, timeout=WAIT_S)
        assert (away.text, away.route.deployment) == ("fine", "m")
        assert "`x` is not loaded yet, and is being loaded meanwhile" in away.route.reasons
        await until(lambda: at.server.gateway.model("x").status.ready_since > 0)
        assert (await at.inference.Generate(asked, timeout=WAIT_S)).route.deployment == "x"
        pid = pid_of(at, "x")

        stream = at.inference.StreamGenerate(pb.GenerateRequest(model="x", **_fields(LONG)), timeout=WAIT_S)
        assert (await stream.read()).WhichOneof("event") == "start"
        done = await file.reload(at, remote(peer), {**remote(peer), "id": "n"}, local, routes=[route])
        assert (done.changes.added, done.changes.adjusted, done.changes.rebuilt) == (["n"], [], [])
        assert pid_of(at, "x") == pid

        around = {**local, "max_queue": 3, "timeout": "1h", "retries": 0, "warm": {"min": 1, "idle_unload": "1h"}}
        done = await file.reload(at, remote(peer), around, routes=[route], memory_budget="64GiB")
        assert (done.changes.removed, done.changes.adjusted) == (["n"], ["x"])
        assert (pid_of(at, "x"), workers()) == (pid, {pid})
        assert at.server.gateway.model("x").max_queue == 3
        assert at.server.registry.get_sample_value("polyroute_memory_budget_bytes", {"device": "cpu"}) == 64 << 30

        done = await file.reload(at, remote(peer))
        assert done.changes.removed == ["x"]
        gone = await refused(at.inference.Generate(pb.GenerateRequest(model="x", prompt="a"), timeout=WAIT_S))
        assert gone.code is grpc.StatusCode.NOT_FOUND
        assert workers() == {pid}  # the answer that it began goes on
        assert (await stream.read()).WhichOneof("event") == "delta"
        stream.cancel()
        await until(lambda: workers() == set())
        await until(lambda: not at.server.registry.get_sample_value("polyroute_memory_held_bytes", {"device": "cpu"}))
        assert await at.text(model="m") == "fine"


def _fields(request: pb.GenerateRequest) -> dict[str, Any]:
    return {field.name: value for field, value in request.ListFields()}


async def test_options_of_a_peers_calls_change_around_those_in_flight(peer: ScriptedPeer, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def held(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head(SSE), chunk(BEGIN))
        await gate.wait()
        await connection.send(chunk(END), chunk(b""))

    ill = ScriptedPeer({"/v1/models": models(), COMPLETIONS: ERROR})
    await ill.listen()
    peer.plays[COMPLETIONS] = held
    file = File(tmp_path)
    file.write(remote(peer, ill, retries=0, breaker="off", balance="round_robin"))
    try:
        async with under_test(tmp_path, file.path) as at:
            view = lambda: at.server.gateway.model("m")  # noqa: E731
            await until(lambda: {replica.state for replica in view().status.replicas} == {ModelState.WARM})
            both = [asyncio.create_task(at.text()) for _ in range(2)]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)  # one each: nothing is tried again
            await until(lambda: [replica.in_flight for replica in view().status.replicas] == [1, 0])

            now = {"retries": 2, "breaker": {"failures": 1, "open": "30s"}, "balance": "least_outstanding"}
            done = await file.reload(at, remote(peer, ill, **now))
            assert (done.changes.adjusted, done.changes.rebuilt) == (["m"], [])
            assert (view().in_flight, [replica.in_flight for replica in view().status.replicas]) == (1, [1, 0])

            peer.plays[COMPLETIONS] = FINE
            assert [await at.text() for _ in range(8)] == ["fine"] * 8  # by another try, or since the breaker is open
            assert [replica.breaker for replica in view().status.replicas] == ["closed", "open"]

            gate.set()
            ends = await asyncio.gather(*both, return_exceptions=True)
            assert [end for end in ends if isinstance(end, str)] == ["fine"]
            await until(lambda: view().in_flight == 0)
    finally:
        await ill.hang_up()
