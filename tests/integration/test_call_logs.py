"""A real server leaves one line a call, over gRPC and REST, however the call ends, and nothing of what was said."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import orjson
import pytest

from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from tests.integration.grpc_serving import WAIT_S
from tests.integration.peers import Connection, PeerRequest, ScriptedPeer, answering, models, until
from tests.integration.test_server_process import FREE, ended, ready, running

CANARY = "xylophone quartz"
"""In every prompt and in every answer."""
CHAT = "/v1/chat/completions"
CONFIG = """\
default_model: m
models:
  - {{id: m, type: remote, base_url: "{url}", api: openai, retries: 0, max_concurrency: 4}}
  - {{id: broken, type: remote, base_url: "{url}", api: openai, retries: 0, peer_model: broken}}
routes:
  - {{id: safe, model: broken, fallback: [m]}}
"""


async def play(connection: Connection, request: PeerRequest) -> None:
    """Answers with the canary; hangs where the prompt says so, and refuses with the prompt in its error."""
    asked = request.json
    said = asked["messages"][-1]["content"]
    if asked["model"] == "broken":
        return await answering(orjson.dumps({"error": {"message": f"cannot {said}"}}), status="500 Oh")(
            connection, request
        )
    if "hang" in said:
        await connection.gone.wait()
        return None
    if "garble" in said:
        return await answering(f'{{"choices": [{{"message": "{CANARY}"}}]}}'.encode())(connection, request)
    choice = {"index": 0, "message": {"role": "assistant", "content": CANARY}, "finish_reason": "stop"}
    answer = {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
    return await answering(orjson.dumps(answer))(connection, request)


@dataclass(slots=True)
class At:
    """A server process, and clients of it."""

    process: Process
    inference: InferenceServiceStub
    http: aiohttp.ClientSession

    async def ask(self, prompt: str = CANARY, timeout_s: float = WAIT_S, **fields: Any) -> str:
        """How a unary call ends: `ok` or its status."""
        message = pb.Message(role="user", content=prompt)
        request = pb.GenerateRequest(messages=pb.MessageList(messages=[message]), **fields)
        try:
            await self.inference.Generate(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "ok"

    async def post(self, path: str, body: Any, **headers: str) -> int:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        async with self.http.post(path, data=data, headers={"Content-Type": "application/json", **headers}) as answer:
            await answer.read()
            return answer.status

    async def send(self, data: bytes) -> bytes:
        """What the HTTP address answers to these bytes."""
        url = self.http._base_url
        assert url is not None
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), WAIT_S)
        writer.close()
        return answer

    async def lines(self) -> list[dict[str, Any]]:
        """Stops the server; the lines that it leaves, of which all are JSON but what is said to people."""
        self.process.send_signal(signal.SIGTERM)
        code, out, err = await ended(self.process)
        assert code == 0, err
        assert CANARY.split()[0] not in out + err
        return [json.loads(line) for line in err.splitlines() if line.startswith("{")]


@asynccontextmanager
async def served(folder: Path, peer: ScriptedPeer, **environ: str) -> AsyncIterator[At]:
    peer.plays |= {"/v1/models": models({"id": "m"}, {"id": "broken"}), CHAT: play}
    config = folder / "models.yaml"
    config.write_text(CONFIG.format(url=peer.url))
    async with running(folder, "--config", str(config), *FREE, **environ) as process:
        found = re.search(r"gRPC (\S+), REST and console (\S+),", await ready(process))
        assert found
        async with (
            grpc.aio.insecure_channel(found[1]) as channel,
            aiohttp.ClientSession(found[2], timeout=aiohttp.ClientTimeout(total=WAIT_S)) as http,
        ):
            yield At(process, InferenceServiceStub(channel), http)


def calls(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == "call.finished"]


async def test_each_outcome_over_grpc_leaves_one_line(tmp_path: Path, scripted_peer: ScriptedPeer) -> None:
    async with served(tmp_path, scripted_peer, POLYROUTE_LOG_FORMAT="json") as at:
        assert await at.ask(temperature=0) == "ok"
        assert await at.ask(temperature=0) == "ok"  # from the cache
        assert await at.ask(model="safe") == "ok"  # by the fallback
        assert await at.ask(model="broken") == "UNAVAILABLE"
        assert await at.ask("garble " + CANARY) == "UNAVAILABLE"
        assert await at.ask(model="none") == "NOT_FOUND"
        assert await at.ask(temperature=-1) == "INVALID_ARGUMENT"
        assert await at.ask("hang " + CANARY, timeout_s=0.3) == "DEADLINE_EXCEEDED"
        asking = asyncio.create_task(at.ask("hang " + CANARY))
        await until(lambda: len(scripted_peer.calls(CHAT)) == 7, "the peer is asked")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        lines = calls(await at.lines())
    # A caller's own clock ends its call somewhat before the server's does, and how long before is chance.
    late = lines[7]["outcome"]
    assert late in ("DEADLINE_EXCEEDED", "CANCELLED")
    told = [(line["outcome"], line["cache"], line["deployment"]) for line in lines]
    assert told == [
        ("ok", "miss", "m"),
        ("ok", "hit", "m"),
        ("ok", "bypass", "m"),
        ("PEER_FAILED", "unspecified", "broken"),
        ("PEER_FAILED", "unspecified", "m"),
        ("UNKNOWN_MODEL", "unspecified", ""),
        ("INVALID_ARGUMENT", "unspecified", ""),
        (late, "unspecified", lines[7]["deployment"]),
        ("CANCELLED", "unspecified", ""),
    ]
    assert {line["entrance"] for line in lines} == {"polyroute.v1.InferenceService/Generate"}
    assert len({line["request_id"] for line in lines}) == len({line["trace_id"] for line in lines}) == len(lines)
    fallen = lines[2]
    assert fallen["attempts"][0].startswith("broken at http")
    assert fallen["attempts"][0].endswith("PEER_FAILED")
    assert fallen["attempts"][1].endswith(": ok")
    assert (lines[0]["prompt_tokens"], lines[0]["completion_tokens"]) == (5, 2)
    assert lines[0]["total_s"] >= lines[0]["first_token_s"] >= lines[0]["backend_s"] > 0
    assert lines[3]["error"].endswith("answered 500: (23 characters that are not logged)")
    assert [line["level"] for line in lines[:7]].count("warning") == 2


async def test_each_outcome_over_rest_leaves_one_line(tmp_path: Path, scripted_peer: ScriptedPeer) -> None:
    chat = {"messages": [{"role": "user", "content": CANARY}], "temperature": 0}
    async with served(tmp_path, scripted_peer) as at:  # stderr is no terminal: JSON
        assert await at.post(CHAT, chat) == 200
        assert await at.post(CHAT, chat) == 200
        assert await at.post(CHAT, {**chat, "stream": True}) == 200
        assert await at.post(CHAT, {**chat, "model": "broken"}) == 502
        assert await at.post(CHAT, {**chat, "model": "none"}) == 404
        assert await at.post(CHAT, {**chat, "messages": CANARY}) == 400
        assert await at.post(CHAT, f'{{"messages": "{CANARY}'.encode()) == 400
        assert await at.post("/v1/nothing", chat) == 404
        hanging = {**chat, "messages": [{"role": "user", "content": f"hang {CANARY}"}]}
        assert await at.post(CHAT, hanging, **{"X-Polyroute-Timeout-Ms": "300"}) == 504
        asking = asyncio.create_task(at.post(CHAT, hanging))
        await until(lambda: len(scripted_peer.calls(CHAT)) == 4, "the peer is asked")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        lines = await at.lines()
    assert Counter(line["outcome"] for line in calls(lines)) == {
        "ok": 3,
        "PEER_FAILED": 1,
        "UNKNOWN_MODEL": 1,
        "INVALID_ARGUMENT": 2,
        "DEADLINE_EXCEEDED": 1,
        "CANCELLED": 1,
    }
    assert Counter(line["cache"] for line in calls(lines) if line["outcome"] == "ok") == {"hit": 2, "miss": 1}
    assert {line["entrance"] for line in calls(lines)} == {f"POST {CHAT}"}
    (refused,) = [line for line in lines if line["event"] == "rest.refused"]
    assert (refused["outcome"], refused["entrance"]) == ("NOT_FOUND", "POST /v1/nothing")


async def test_what_is_said_in_the_wrong_place_is_not_logged(tmp_path: Path, scripted_peer: ScriptedPeer) -> None:
    """`At.lines` looks for the canary in all that the server has written."""
    message = pb.Message(role=CANARY, content="x")
    requests = [
        pb.GenerateRequest(messages=pb.MessageList(messages=[message])),
        pb.GenerateRequest(prompt="x", model=CANARY),
        pb.GenerateRequest(prompt="x", model=CANARY.split()[0] * 30),
        pb.GenerateRequest(prompt="x", tool_choice=CANARY),
    ]
    async with served(tmp_path, scripted_peer) as at:
        for request in requests:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await at.inference.Generate(request, timeout=WAIT_S)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await at.post(CHAT, {"model": CANARY, "messages": [{"role": "user", "content": "x"}]}) == 400
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b" 400 " in await at.send(head + CANARY.encode() + b"\r\n\r\n")
        lines = await at.lines()
    assert [line["outcome"] for line in calls(lines)] == ["INVALID_ARGUMENT"] * 5
    assert {line["requested"] for line in calls(lines)} == {""}
    assert [line["status"] for line in lines if line["event"] == "rest.garbage"] == [400]


async def test_each_prompt_of_a_batch_is_a_call(tmp_path: Path, scripted_peer: ScriptedPeer) -> None:
    async with served(tmp_path, scripted_peer) as at:
        assert await at.post("/v1/generate/batch", {"prompts": []}, **{"X-Request-ID": "none"}) == 400
        await at.post("/v1/generate/batch", {"prompts": ["a", "b"], "model": "none"}, **{"X-Request-ID": "two"})
        lines = calls(await at.lines())
    assert lines[0]["request_id"] == "none"
    assert {line["request_id"] for line in lines[1:]} <= {"two-0", "two-1"}


async def test_lines_for_people_show_no_prompt_either(tmp_path: Path, scripted_peer: ScriptedPeer) -> None:
    async with served(tmp_path, scripted_peer, POLYROUTE_LOG_FORMAT="text", POLYROUTE_LOG_LEVEL="debug") as at:
        assert await at.ask() == "ok"
        at.process.send_signal(signal.SIGTERM)
        code, _, err = await ended(at.process)
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if "call.finished" in line]
    assert not line.startswith("{")
    assert CANARY not in err
