"""A call through two servers to a worker is one tree in a real collector, however it ends.

A bad collector harms no call.

The servers, the worker and the collector are processes of their own.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest

from polyroute.core.trace import new_span_id, new_trace_id
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from tests.integration.collector import Arrived, Spans, collector, receiver, unwell
from tests.integration.grpc_serving import WAIT_S, until
from tests.integration.peers import ScriptedPeer, answering, models
from tests.integration.test_server_process import FREE, ended, ready, running
from tests.tiny import save

BACK = """\
cache: {{mode: "off"}}
models:
  - {{id: tiny, type: local, source: "{source}", device: cpu, dtype: float32}}
"""
FRONT = """\
cache: {{mode: "off"}}
default_model: far
models:
  - {{id: far, type: remote, base_url: "{back}", api: openai, peer_model: tiny, retries: 0}}
  - {{id: hurried, type: remote, base_url: "{back}", api: openai, peer_model: tiny, retries: 0, timeout: 1s}}
  - {{id: broken, type: remote, base_url: "{broken}", api: openai, retries: 1}}
routes:
  - {{id: safe, model: broken, fallback: [far]}}
"""
ENDLESS = {"prompt": "go on", "max_tokens": 60_000, "temperature": 0.0}
CALL, HOP = "polyroute.v1.InferenceService/Generate", "POST /v1/completions"


@dataclass(slots=True)
class Listening:
    """A server process and where it listens."""

    process: Process
    grpc: str
    http: str

    async def stopped(self) -> str:
        """Ends it well; what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        code, _, err = await ended(self.process)
        assert code == 0, err
        return err


@asynccontextmanager
async def listening(folder: Path, config: str, **environ: str) -> AsyncIterator[Listening]:
    folder.mkdir()
    path = folder / "models.yaml"
    path.write_text(config)
    async with running(folder, "--config", str(path), *FREE, **environ) as process:
        found = re.search(r"gRPC (\S+), REST and console (http://\S+),", await ready(process))
        assert found
        yield Listening(process, found[1], found[2])


@dataclass(slots=True)
class Caller:
    """A client that has a trace of its own."""

    inference: InferenceServiceStub
    trace_id: str = ""
    span_id: str = ""

    def begin(self, stub: Any, timeout_s: float = WAIT_S, **fields: Any) -> Any:
        """A call in a new trace."""
        self.trace_id, self.span_id = new_trace_id(), new_span_id()
        parent = f"00-{self.trace_id}-{self.span_id}-01"
        return stub(pb.GenerateRequest(**fields), timeout=timeout_s, metadata=(("traceparent", parent),))


async def test_each_ending_is_one_tree(tmp_path: Path, scripted_peer: ScriptedPeer) -> None:
    source = save("llama", tmp_path / "model", max_position_embeddings=65536)
    scripted_peer.plays |= {
        "/v1/models": models({"id": "broken"}),
        "/v1/completions": answering(b"no", status="500 Oh", kind="text/plain"),
    }
    async with receiver() as spans, collector(spans) as endpoint:
        otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        async with (
            listening(tmp_path / "back", BACK.format(source=source), OTEL_SERVICE_NAME="back", **otel) as back,
            listening(
                tmp_path / "front",
                FRONT.format(back=back.http, broken=scripted_peer.url),
                OTEL_SERVICE_NAME="front",
                **otel,
            ) as front,
            grpc.aio.insecure_channel(front.grpc) as channel,
        ):
            caller = Caller(InferenceServiceStub(channel))
            await a_call_that_goes_well(caller, spans)
            await one_that_is_retried_and_falls_back(caller, spans)
            await one_whose_caller_leaves(caller, spans)
            await one_that_is_late(caller, spans, front)
            await one_whose_model_is_late(caller, spans)
            await one_whose_caller_has_no_more_time(caller, spans)
            await one_that_is_refused(caller, spans)
            await one_whose_worker_is_killed(caller, spans, back)
            for server in (front, back):
                assert "go on" not in await server.stopped()


async def tree(caller: Caller, spans: Spans, most: int) -> list[Arrived]:
    """The spans of the last call, once all have arrived; each but the first has its parent among them."""
    await until(lambda: len(spans.of(caller.trace_id)) >= most)
    found = spans.of(caller.trace_id)
    assert len(found) == most, [(span.service, span.name) for span in found]
    assert (found[0].parent_id, found[0].service, found[0].kind) == (caller.span_id, "front", "server")
    known = {span.span_id: span for span in found}
    for span in found[1:]:
        parent = known[span.parent_id]
        assert parent.begun_ns <= span.begun_ns <= span.ended_ns
    return found


def line(found: list[Arrived]) -> list[tuple[str, str, str]]:
    """Where each span is from, its name, and that of its parent."""
    names = {span.span_id: span.name for span in found}
    return [(span.service, span.name, names.get(span.parent_id, "")) for span in found]


THROUGH = [
    ("front", "text_completion far", CALL),
    ("back", HOP, "text_completion far"),
    ("back", "text_completion tiny", HOP),
    ("back", "prefill", "text_completion tiny"),
    ("back", "decode", "text_completion tiny"),
]


async def a_call_that_goes_well(caller: Caller, spans: Spans) -> None:
    answer = await caller.begin(caller.inference.Generate, prompt="hello there", max_tokens=4, temperature=0)
    assert answer.route.trace_id == caller.trace_id
    found = await tree(caller, spans, 6)
    assert line(found) == [("front", CALL, ""), *THROUGH]
    assert not any(span.failed or span.error for span in found)
    call, attempt, hop, _, prefill, decode = found
    assert [span.kind for span in (attempt, hop, prefill)] == ["client", "server", "internal"]
    assert call.attributes["rpc.response.status_code"] == "OK"
    assert call.attributes["gen_ai.usage.output_tokens"] == answer.usage.completion_tokens
    assert attempt.attributes["http.response.status_code"] == hop.attributes["http.response.status_code"] == 200
    assert prefill.attributes["gen_ai.usage.input_tokens"] == answer.usage.prompt_tokens
    assert decode.attributes["gen_ai.usage.output_tokens"] == answer.usage.completion_tokens
    assert "hello" not in repr(found)


async def one_that_is_retried_and_falls_back(caller: Caller, spans: Spans) -> None:
    await caller.begin(caller.inference.Generate, model="safe", prompt="x", max_tokens=2, temperature=0)
    found = await tree(caller, spans, 8)
    failed = ("front", "text_completion broken", CALL)
    assert line(found) == [("front", CALL, ""), failed, failed, *THROUGH]
    assert [span.failed for span in found] == [False, True, True, *[False] * 5]
    assert [span.error for span in found[1:3]] == ["PEER_FAILED"] * 2
    assert found[1].attributes["http.response.status_code"] == 500
    assert found[1].words.endswith("(2 characters that are not logged)")


async def one_whose_caller_leaves(caller: Caller, spans: Spans) -> None:
    stream = caller.begin(caller.inference.StreamGenerate, **ENDLESS)
    await stream.read()
    await stream.read()  # the first token, so that it is counted
    stream.cancel()
    found = await tree(caller, spans, 6)
    assert [span.name for span in found[1:]] == [name for _, name, _ in THROUGH]
    assert not any(span.failed for span in found)
    assert (found[0].error, found[0].attributes["rpc.response.status_code"]) == ("CANCELLED", "CANCELLED")
    assert found[1].attributes["polyroute.outcome"] == "CANCELLED"
    assert found[2].error == "CANCELLED"
    assert found[0].attributes["gen_ai.usage.output_tokens"] > 0
    assert found[2].attributes["gen_ai.usage.output_tokens"] > 0


async def one_that_is_late(caller: Caller, spans: Spans, front: Listening) -> None:
    """Over REST, where the server's clock alone decides."""
    caller.trace_id, caller.span_id = new_trace_id(), new_span_id()
    headers = {"traceparent": f"00-{caller.trace_id}-{caller.span_id}-01", "X-Polyroute-Timeout-Ms": "1500"}
    async with aiohttp.ClientSession(front.http) as http, http.post(HOP[5:], json=ENDLESS, headers=headers) as answer:
        assert answer.status == 504
    found = await tree(caller, spans, 6)
    assert [told[:2] for told in line(found)] == [("front", HOP), *(told[:2] for told in THROUGH)]
    assert (found[0].error, found[0].failed) == ("DEADLINE_EXCEEDED", True)
    assert found[0].attributes["http.response.status_code"] == 504
    assert found[2].error in ("DEADLINE_EXCEEDED", "CANCELLED")  # by its own clock, or since its caller had left


async def one_whose_model_is_late(caller: Caller, spans: Spans) -> None:
    """Over gRPC, where the server's clock alone decides as well: it is the model's own `timeout`."""
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await caller.begin(caller.inference.Generate, model="hurried", **ENDLESS)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    (call, *_) = await tree(caller, spans, 6)
    assert (call.name, call.error, call.failed) == (CALL, "DEADLINE_EXCEEDED", True)
    assert call.attributes["rpc.response.status_code"] == "DEADLINE_EXCEEDED"


async def one_whose_caller_has_no_more_time(caller: Caller, spans: Spans) -> None:
    """Over gRPC the caller's clock ends the call; where its end takes long to arrive, it is that of one who left."""
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await caller.begin(caller.inference.Generate, timeout_s=1.5, **ENDLESS)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    call, attempt, *_ = await tree(caller, spans, 6)
    assert call.attributes["rpc.response.status_code"] == call.error
    assert (call.error, call.failed) in {("DEADLINE_EXCEEDED", True), ("CANCELLED", False)}
    assert "CANCELLED" in (attempt.error, attempt.attributes.get("polyroute.outcome")) or attempt.failed


async def one_that_is_refused(caller: Caller, spans: Spans) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await caller.begin(caller.inference.Generate, prompt="x", temperature=-1)
    (call,) = await tree(caller, spans, 1)
    assert (call.error, call.failed) == ("INVALID_ARGUMENT", False)


async def one_whose_worker_is_killed(caller: Caller, spans: Spans, back: Listening) -> None:
    stream = caller.begin(caller.inference.StreamGenerate, **ENDLESS)
    await stream.read()
    await stream.read()
    os.kill(worker_of(back.process.pid), signal.SIGKILL)
    with pytest.raises(grpc.aio.AioRpcError) as lost:
        await asyncio.wait_for(rest_of(stream), WAIT_S)
    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
    found = await tree(caller, spans, 6)
    assert [told[:2] for told in line(found)[1:]] == [told[:2] for told in THROUGH]
    assert {span.name: span.error for span in found} == {
        f"{CALL.removesuffix('Generate')}StreamGenerate": "PEER_FAILED",
        "text_completion far": "PEER_FAILED",
        HOP: "WORKER_DIED",
        "text_completion tiny": "WORKER_DIED",
        "prefill": "",
        "decode": "WORKER_DIED",
    }
    assert [span.name for span in found if not span.failed] == ["prefill"]
    told = [span.attributes.get("http.response.status_code") for span in found[1:3]]
    assert told == [200, 200]  # on both sides, since the stream had begun


async def rest_of(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


def worker_of(pid: int) -> int:
    """The worker process of a server."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (worker,) = [int(child) for child in children if b"local.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return worker


@pytest.mark.parametrize("bad", ["down", "silent", "slow", "refusing", "refusing over HTTP"])
async def test_a_bad_collector_harms_no_call(tmp_path: Path, scripted_peer: ScriptedPeer, bad: str) -> None:
    """The server answers, tells of the collector at most once in a while, and ends in its time."""
    from tests.integration.test_call_logs import CHAT, play

    scripted_peer.plays |= {"/v1/models": models(), CHAT: play}
    config = f'cache: {{mode: "off"}}\nmodels:\n  - {{id: m, type: remote, base_url: "{scripted_peer.url}"}}\n'
    async with unwell(bad) as (environ, asked):
        otel = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
        async with listening(tmp_path / "server", config, **otel, **environ) as server:
            async with grpc.aio.insecure_channel(server.grpc) as channel:
                message = pb.MessageList(messages=[pb.Message(role="user", content="x")])
                for _ in range(200):
                    await InferenceServiceStub(channel).Generate(pb.GenerateRequest(messages=message), timeout=WAIT_S)
            err = await server.stopped()
        assert asked()
    if bad in ("silent", "slow"):  # it has waited for the collector as long as it may, and no longer
        assert err.count("trace.unsent") == 1
    assert err.count("call.finished") == 200
    assert err.count("opentelemetry.exporter") <= 5
