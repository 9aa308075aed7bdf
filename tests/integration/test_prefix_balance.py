"""`balance: prefix` on real sockets: prompts that share their beginning meet again, and never crowd one peer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polyroute.backends.pool.balance import SLACK
from polyroute.core.backend import ModelState
from polyroute.core.config import RemoteConfig
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1 import models_pb2
from tests.integration.grpc_serving import WAIT_S, Serving, serving
from tests.integration.peers import (
    SSE,
    Connection,
    PeerRequest,
    ScriptedPeer,
    chunk,
    data,
    head,
    models,
    streaming,
    until,
)
from tests.integration.test_grpc_cancel import settings_of

COMPLETIONS = "/v1/completions"
BEGIN = data({"choices": [{"index": 0, "text": "fine"}]})
END = data({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})


@pytest.fixture
async def peers() -> AsyncIterator[list[ScriptedPeer]]:
    three = [ScriptedPeer({"/v1/models": models(), COMPLETIONS: streaming(BEGIN, END)}) for _ in range(3)]
    for peer in three:
        await peer.listen()
    yield three
    for peer in three:
        await peer.hang_up()


def prompt(system: int, question: str) -> str:
    return f"You are assistant {system}. " * 100 + question


async def answered_by(at: Serving, text: str) -> str:
    answer = await at.inference.Generate(pb.GenerateRequest(prompt=text), timeout=WAIT_S)
    replica: str = answer.route.replica
    return replica


async def test_shared_beginnings_meet_and_spill(peers: list[ScriptedPeer], tmp_path: Path) -> None:
    urls = tuple(peer.url for peer in peers)
    model = RemoteConfig(id="m", type="remote", base_urls=urls, api="openai", balance="prefix")
    async with serving(folder=tmp_path, settings=settings_of(model, tmp_path)) as at:
        await until(lambda: all(state is ModelState.WARM for state in _states(at)), "all peers are known")
        homes = [await answered_by(at, prompt(system, "first")) for system in range(8)]
        assert len(set(homes)) > 1
        for turn in range(4):
            assert [await answered_by(at, prompt(system, f"turn {turn}")) for system in range(8)] == homes

        asked = models_pb2.ExplainRouteRequest(request=pb.GenerateRequest(prompt=prompt(0, "where?")))
        plan = await at.models.ExplainRoute(asked, timeout=WAIT_S)
        assert plan.attempts[0].replica == homes[0]
        assert "has had the first" in plan.attempts[0].replica_reason

        gate = asyncio.Event()

        async def held(connection: Connection, _request: PeerRequest) -> None:
            await connection.send(head(SSE), chunk(BEGIN))
            await gate.wait()
            await connection.send(chunk(END), chunk(b""))

        for peer in peers:
            peer.plays[COMPLETIONS] = held
        calls = []
        for number in range(2 * SLACK):  # one after the other, so that each sees those before it
            calls.append(asyncio.create_task(answered_by(at, prompt(0, f"call {number}"))))
            await until(lambda: at.server.gateway.model("m").in_flight == len(calls), "the call is in flight")
            await until(lambda: sum(_in_flight(at)) == len(calls), "it has its replica")
        crowd = dict(zip(urls, _in_flight(at), strict=True))
        gate.set()
        assert Counter(await asyncio.gather(*calls)) == Counter({url: count for url, count in crowd.items() if count})
        assert crowd[homes[0]] == SLACK  # as many as are no load yet; the others went where there was room
        assert sum(crowd.values()) == 2 * SLACK


def _states(at: Serving) -> list[ModelState]:
    return [replica.state for replica in at.server.gateway.model("m").status.replicas]


def _in_flight(at: Serving) -> list[int]:
    return [replica.in_flight for replica in at.server.gateway.model("m").status.replicas]
