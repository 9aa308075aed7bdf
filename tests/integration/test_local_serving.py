"""A local model through the whole server, over gRPC and REST: what only the path from end to end can show."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.local.backend import LocalBackend
from polyroute.backends.local.cores import Cores
from polyroute.backends.local.inbox import MOST_BYTES
from polyroute.core.config import CacheConfig, Config, LocalConfig
from polyroute.server.app import Server
from polyroute.server.rpc import boundary
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from tests.integration.grpc_serving import WAIT_S, refused, serving, settings_for
from tests.integration.peers import until
from tests.tiny import save

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}},
    "required": ["ok", "kind"],
    "additionalProperties": False,
}
LONG = {"max_tokens": 400, "temperature": 1.0, "seed": 5, "logprobs": 20}
HEAVY_EVENT_BYTES = 4096


@dataclass(slots=True)
class Site:
    """A running server with one local model, and clients of it."""

    server: Server
    backend: LocalBackend
    inference: InferenceServiceStub
    http: aiohttp.ClientSession

    @property
    def held(self) -> int:
        return self.backend.status().replicas[0].in_flight


@asynccontextmanager
async def site(folder: Path, cache_dir: Path) -> AsyncIterator[Site]:
    config = LocalConfig.model_validate(
        {"id": "m", "type": "local", "source": str(folder), "device": "cpu", "kv_cache_memory": "16MiB"}
    )
    backend = LocalBackend(config, cache_dir=cache_dir, cores=Cores(1))
    whole = Config(models=(config,), cache=CacheConfig(mode="off"))
    settings = replace(settings_for(EchoBackend("m"), folder=cache_dir), config=whole)
    # A caller that does not read ahead: gRPC's own buffers hold as much as 5 MB else.
    options = [("grpc.http2.bdp_probe", 0)]
    async with (
        Server(settings, environ={}, backends={"m": backend}) as server,
        grpc.aio.insecure_channel(str(server.grpc_address), options=options) as channel,
        aiohttp.ClientSession(f"http://{server.http_address}") as http,
    ):
        await asyncio.wait_for(backend.load(), WAIT_S)
        yield Site(server, backend, InferenceServiceStub(channel), http)


async def test_the_life_of_a_served_model(tmp_path: Path) -> None:
    """One worker serves all of these, because starting one takes seconds."""
    folder = save("llama", tmp_path / "model", max_position_embeddings=65536)
    async with site(folder, tmp_path) as at:
        await a_reader_that_stalls_is_paused_alone(at)
        await a_known_prefix_is_told(at)
        await a_prompt_beyond_the_kv_memory_is_refused(at)
        await answers_keep_to_their_format(at)
        await a_bad_format_is_named(at)
        assert at.held == 0


async def a_reader_that_stalls_is_paused_alone(at: Site) -> None:
    whole = await at.inference.Generate(pb.GenerateRequest(prompt="go on", **LONG), timeout=WAIT_S)
    assert whole.usage.completion_tokens == LONG["max_tokens"]
    stalled = at.inference.StreamGenerate(pb.GenerateRequest(prompt="go on", **LONG), timeout=WAIT_S)
    assert (await stalled.read()).WhichOneof("event") == "start"
    (inbox,) = at.backend._answers._open.values()
    await until(lambda: inbox.held, "the answer is paused")
    for _ in range(2):  # others go on meanwhile, to their ends
        other = await at.inference.Generate(pb.GenerateRequest(prompt="go on", **LONG), timeout=WAIT_S)
        assert other.text == whole.text
    assert at.held == 1
    assert MOST_BYTES <= inbox.unread_bytes < MOST_BYTES + 10 * HEAVY_EVENT_BYTES
    text, logprobs, end = "", [], None
    while (event := await stalled.read()) is not grpc.aio.EOF:
        text += event.delta.text
        logprobs.extend(event.delta.logprobs)
        end = event.end if event.WhichOneof("event") == "end" else end
    assert text == whole.text
    assert logprobs == list(whole.logprobs)
    assert end is not None
    assert end.usage.completion_tokens == whole.usage.completion_tokens


async def a_known_prefix_is_told(at: Site) -> None:
    prompt = "The quick brown fox jumps over the lazy dog. " * 20
    asked = pb.GenerateRequest(prompt=prompt, max_tokens=2, temperature=0)
    first = await at.inference.Generate(asked, timeout=WAIT_S)
    again = await at.inference.Generate(asked, timeout=WAIT_S)
    assert again.text == first.text
    assert first.usage.cached_prompt_tokens == 0
    assert 0 < again.usage.cached_prompt_tokens < again.usage.prompt_tokens
    body = {"model": "m", "prompt": prompt, "max_tokens": 2, "temperature": 0}
    async with at.http.post("/v1/completions", json=body) as answer:
        told = (await answer.json())["usage"]
    assert told["prompt_tokens_details"] == {"cached_tokens": again.usage.cached_prompt_tokens}


async def a_prompt_beyond_the_kv_memory_is_refused(at: Site) -> None:
    found = await refused(at.inference.Generate(pb.GenerateRequest(prompt="word " * 16000), timeout=WAIT_S))
    assert (found.code, found.field) == (grpc.StatusCode.INVALID_ARGUMENT, "prompt")
    assert re.search(r"\d+ tokens, but the memory for keys and values holds \d+", found.message)


async def answers_keep_to_their_format(at: Site) -> None:
    formats: dict[str, pb.ResponseFormat] = {
        r"-?\d{3}": pb.ResponseFormat(regex=r"-?[0-9]{3}"),
        "Paris|Rome": pb.ResponseFormat(choice=pb.ChoiceList(choices=["Paris", "Rome"])),
    }
    for pattern, form in formats.items():
        for seed in range(3):
            asked = pb.GenerateRequest(prompt="Which?", response_format=form, temperature=1.0, seed=seed, max_tokens=50)
            answer = await at.inference.Generate(asked, timeout=WAIT_S)
            assert re.fullmatch(pattern, answer.text)
            assert answer.finish_reason == pb.FINISH_REASON_STOP
    asked = pb.GenerateRequest(
        prompt="JSON:", response_format=pb.ResponseFormat(json_schema=json.dumps(SCHEMA)), max_tokens=300, seed=1
    )
    check(json.loads((await at.inference.Generate(asked, timeout=WAIT_S)).text))
    body: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": "JSON, please"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA}},
        "max_tokens": 300,
        "seed": 2,
    }
    async with at.http.post("/v1/chat/completions", json=body) as answer:
        (choice,) = (await answer.json())["choices"]
    check(json.loads(choice["message"]["content"]))
    assert choice["finish_reason"] == "stop"


def check(verdict: dict[str, Any]) -> None:
    assert sorted(verdict) == ["kind", "ok"]
    assert verdict["kind"] in ("a", "b")
    assert isinstance(verdict["ok"], bool)


async def a_bad_format_is_named(at: Site) -> None:
    forms = {
        "json_schema": pb.ResponseFormat(json_schema='{"type": "no such type"}'),
        "regex": pb.ResponseFormat(regex="(unclosed"),
    }
    for kind, form in forms.items():
        found = await refused(
            at.inference.Generate(pb.GenerateRequest(prompt="a", response_format=form), timeout=WAIT_S)
        )
        assert (found.code, found.field) == (grpc.StatusCode.INVALID_ARGUMENT, f"response_format.{kind}")
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "response_format": bad}
    async with at.http.post("/v1/chat/completions", json=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"].startswith("response_format")


async def test_a_grpc_caller_that_stops_reading_holds_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boundary, "STALL_S", 0.1)
    echo = EchoBackend("m", script=Script(texts=["x" * 1_000_000] * 100))
    async with serving(echo, folder=tmp_path) as at:
        stream = at.inference.StreamGenerate(pb.GenerateRequest(prompt="a"), timeout=WAIT_S)
        await stream.read()
        await until(lambda: at.server.gateway.model("m").in_flight == 0, "the permit came back")
        assert (echo.open, echo.closed_early) == (0, 1)
        cut = await refused(read_out(stream))
        assert cut.code is grpc.StatusCode.CANCELLED
        assert "unread for 0.1 s" in cut.message


async def read_out(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass
