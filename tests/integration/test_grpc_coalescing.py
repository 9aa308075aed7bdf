"""A thousand equal calls over gRPC are one run at the model, and whatever becomes of it is fair to each of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import grpc.aio

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.config import CacheConfig, Config, RemoteConfig
from polyroute.core.errors import WorkerDied
from polyroute.server.settings import Settings
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import ANYWHERE, WAIT_S, Serving, serving, until
from tests.integration.peers import SSE, Connection, PeerRequest, ScriptedPeer, chunk, head, models, said

CROWD = 1000
ASKED = pb.GenerateRequest(prompt="one two three", temperature=0)
CHAT = pb.GenerateRequest(
    messages=pb.MessageList(messages=[pb.Message(role="user", content="one two three")]), temperature=0
)


def calls(at: Serving, count: int, asked: pb.GenerateRequest = ASKED) -> list[grpc.aio.UnaryUnaryCall]:
    return [at.inference.Generate(asked, timeout=WAIT_S) for _ in range(count)]


def joined(at: Serving) -> float:
    found = at.server.registry.get_sample_value("polyroute_cache_lookups_total", {"model": "m", "result": "coalesced"})
    return found or 0.0


async def test_a_thousand_equal_calls_are_one_run(tmp_path: Path) -> None:
    gate = asyncio.Event()
    echo = EchoBackend("m", script=Script(gate=gate, gate_after=1))
    async with serving(echo, folder=tmp_path, cache=CacheConfig()) as at:
        crowd = calls(at, CROWD)
        await until(lambda: joined(at) == CROWD - 1)
        gate.set()
        answers = await asyncio.gather(*crowd)
        late = await at.inference.Generate(ASKED, timeout=WAIT_S)
    assert {answer.text for answer in answers} == {"one two three"}
    results = Counter(answer.route.cache for answer in answers)
    assert results == {pb.CACHE_RESULT_MISS: 1, pb.CACHE_RESULT_COALESCED: CROWD - 1}
    assert late.route.cache == pb.CACHE_RESULT_HIT
    assert (len(echo.calls), echo.completed) == (1, 1)


async def test_the_first_leaves_and_the_others_finish(tmp_path: Path) -> None:
    gate = asyncio.Event()
    echo = EchoBackend("m", script=Script(gate=gate, gate_after=1))
    async with serving(echo, folder=tmp_path, cache=CacheConfig()) as at:
        (first,) = calls(at, 1)
        await until(lambda: echo.open == 1)
        others = calls(at, 20)
        await until(lambda: joined(at) == 20)
        first.cancel()
        in_flight = "polyroute_requests_in_flight"
        await until(lambda: at.server.registry.get_sample_value(in_flight) == 20)
        assert echo.open == 1
        gate.set()
        answers = await asyncio.gather(*others)
    assert [answer.text for answer in answers] == ["one two three"] * 20
    assert (len(echo.calls), echo.closed_early) == (1, 0)


async def test_a_run_that_fails_is_followed_by_one_other(tmp_path: Path) -> None:
    gate = asyncio.Event()
    failing = Script(error=WorkerDied("gone"), gate=gate)
    echo = EchoBackend("m", script=lambda _: failing if len(echo.calls) == 0 else Script())
    async with serving(echo, folder=tmp_path, cache=CacheConfig()) as at:
        crowd = calls(at, 50)
        flights = at.server.gateway.snapshot.deployments["m"].cached.ledger.flights
        await until(lambda: flights.following == 50)
        gate.set()
        answers = await asyncio.gather(*crowd, return_exceptions=True)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [error.code() for error in failed if isinstance(error, grpc.aio.AioRpcError)] == [
        grpc.StatusCode.UNAVAILABLE
    ]
    assert {answer.text for answer in answers if isinstance(answer, pb.GenerateResponse)} == {"one two three"}
    assert len(echo.calls) == 2
    counted = [
        at.server.registry.get_sample_value("polyroute_attempts_total", {"deployment": "m", "outcome": outcome})
        for outcome in ("ok", "WORKER_DIED")
    ]
    assert counted == [1, 1], "attempts are those that were made, not those that were told"


async def test_when_the_last_leaves_the_peers_socket_is_closed(tmp_path: Path) -> None:
    """Down to the peer: nobody is left who wants the answer."""

    async def begin(connection: Connection, _: PeerRequest) -> None:
        await connection.send(head(SSE), chunk(said("one ")))

    peer = ScriptedPeer({"/v1/models": models({"id": "m", "version": "1"}), "/v1/chat/completions": begin})
    await peer.listen()
    model = RemoteConfig(id="m", type="remote", base_urls=(peer.url,))
    settings = Settings(Config(models=(model,)), ANYWHERE, ANYWHERE, ANYWHERE, cache_dir=tmp_path, cache_bytes=2**24)
    try:
        async with serving(folder=tmp_path, settings=settings) as at:
            deployment = at.server.gateway.snapshot.deployments["m"]
            await until(lambda: deployment.backend.facts().version == "1")
            crowd = calls(at, 10, CHAT)
            await until(lambda: joined(at) == 9)
            (asked,) = peer.calls("/v1/chat/completions")
            for call in crowd[1:]:
                call.cancel()
            await until(lambda: deployment.cached.ledger.flights.following == 1)
            assert not asked.connection.gone.is_set()
            crowd[0].cancel()
            async with asyncio.timeout(WAIT_S):
                await asked.connection.gone.wait()
            await until(lambda: deployment.permits.in_flight == 0)
    finally:
        await peer.hang_up()
