"""A gRPC caller that leaves stops the work, wherever it runs: seen at the peer's socket and in the worker."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from polyroute.backends.echo import EchoBackend
from polyroute.core.config import CacheConfig, Config, LocalConfig, RemoteConfig
from polyroute.server.settings import Settings
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import serving, settings_for
from tests.integration.peers import SSE, WAIT_S, Connection, PeerRequest, ScriptedPeer, chunk, head, said, until

CHAT = "/v1/chat/completions"
QUESTION = pb.MessageList(messages=[pb.Message(role="user", content="on and on")])


def settings_of(model: LocalConfig | RemoteConfig, folder: Path) -> Settings:
    config = Config(models=(model,), cache=CacheConfig(mode="off"))
    return replace(settings_for(EchoBackend("m"), folder=folder), config=config)


async def test_the_peers_socket_closes(scripted_peer: ScriptedPeer, tmp_path: Path) -> None:
    async def begins(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head(SSE), chunk(said("on")))

    scripted_peer.plays["/v1/chat/completions"] = begins
    model = RemoteConfig(id="m", type="remote", base_urls=(scripted_peer.url,), api="openai")
    async with serving(folder=tmp_path, settings=settings_of(model, tmp_path)) as at:
        stream = at.inference.StreamGenerate(pb.GenerateRequest(messages=QUESTION), timeout=WAIT_S)
        assert (await stream.read()).WhichOneof("event") == "start"
        assert (await stream.read()).delta.text == "on"
        (asked,) = scripted_peer.calls("/v1/chat/completions")
        assert not asked.connection.gone.is_set()
        left = time.monotonic()
        stream.cancel()
        await asyncio.wait_for(asked.connection.gone.wait(), WAIT_S)
        print(f"the peer's socket closed {1000 * (time.monotonic() - left):.1f} ms after the cancel")
        await until(lambda: at.server.gateway.model("m").in_flight == 0, "the permit came back")


async def test_the_workers_sequence_ends(tiny_llama: Path, tmp_path: Path) -> None:
    """The replica counts what its worker holds: the count falls once the worker has confirmed the drop."""
    model = LocalConfig(id="m", type="local", source=str(tiny_llama), device="cpu")
    async with serving(folder=tmp_path, settings=settings_of(model, tmp_path)) as at:
        await at.server.gateway.load("m", wait=True)
        held = lambda: at.server.gateway.model("m").status.replicas[0].in_flight  # noqa: E731
        call = at.inference.Generate(pb.GenerateRequest(prompt="on", seed=1, temperature=2), timeout=WAIT_S)
        await until(lambda: held() == 1, "the worker began")
        left = time.monotonic()
        call.cancel()
        await until(lambda: held() == 0, "the worker let go")
        print(f"the worker let go {1000 * (time.monotonic() - left):.1f} ms after the cancel")
        await until(lambda: at.server.gateway.model("m").in_flight == 0, "the permit came back")
        (requests,) = [metric for metric in at.server.registry.collect() if metric.name == "polyroute_requests"]
        assert [sample.labels["outcome"] for sample in requests.samples] == ["CANCELLED"]
