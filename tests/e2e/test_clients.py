"""Clients that we did not write, each calling the real server with the real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError

from polyroute.v1 import inference_pb2 as pb
from tests.e2e.running import NODE_DIR, ROOT, Running, run, run_json

pytestmark = pytest.mark.demo

QUESTION = "What is the capital of France?"
MESSAGES = {"messages": [{"role": "user", "content": QUESTION}]}
REQUEST: dict[str, Any] = {"model": "demo", "messages": MESSAGES, "temperature": 0, "max_tokens": 16}
GENERATE = "polyroute.v1.InferenceService/Generate"
STREAM = "polyroute.v1.InferenceService/StreamGenerate"


def grpcurl(demo: Running, request: dict[str, Any], method: str, *flags: str) -> str:
    done = run(["grpcurl", "-plaintext", *flags, "-d", json.dumps(request), demo.grpc, method])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_grpcurl_asks_by_reflection_and_gets_an_answer_in_english(demo: Running) -> None:
    answer = json.loads(grpcurl(demo, REQUEST, GENERATE))
    assert "Paris" in answer["text"]
    assert answer["finish_reason"] == "FINISH_REASON_STOP"
    assert int(answer["usage"]["prompt_tokens"]) > 5
    assert answer["route"]["model"] == "demo"
    assert answer["route"]["reasons"]


def test_grpcurl_finds_every_service_by_reflection(demo: Running) -> None:
    listed = run(["grpcurl", "-plaintext", demo.grpc, "list"]).stdout.split()
    assert {"polyroute.v1.InferenceService", "polyroute.v1.ModelService", "grpc.health.v1.Health"} <= set(listed)
    assert "polyroute.v1.AdminService" not in listed
    admin = run(["grpcurl", "-plaintext", demo.admin, "list"]).stdout.split()
    assert {"polyroute.v1.AdminService", "grpc.channelz.v1.Channelz"} <= set(admin)


def test_a_repeat_is_a_hit_with_the_same_text(demo: Running) -> None:
    request = {**REQUEST, "max_tokens": 15}
    first, second = (json.loads(grpcurl(demo, request, GENERATE)) for _ in range(2))
    assert first["route"]["cache"] == "CACHE_RESULT_MISS"
    assert second["route"]["cache"] == "CACHE_RESULT_HIT"
    assert first["text"] == second["text"]


def test_grpcurl_streams_the_same_text(demo: Running) -> None:
    output = grpcurl(demo, {**REQUEST, "cache": {"mode": "CACHE_MODE_BYPASS"}}, STREAM)
    events = json.loads("[" + output.replace("\n}\n{", "\n},\n{") + "]")
    assert "start" in events[0]
    assert "end" in events[-1]
    assert [int(e.get("sequence", 0)) for e in events] == list(range(len(events)))
    text = "".join(e["delta"].get("text", "") for e in events if "delta" in e)
    assert text == json.loads(grpcurl(demo, REQUEST, GENERATE))["text"]


def buf_curl(demo: Running, request: dict[str, Any]) -> list[str]:
    flags = ["--protocol", "grpc", "--http2-prior-knowledge", "-d", json.dumps(request)]
    return ["buf", "curl", *flags, f"http://{demo.grpc}/{GENERATE}"]


def test_buf_curl_speaks_to_it_too(demo: Running) -> None:
    answer = run_json(buf_curl(demo, REQUEST))
    assert "Paris" in str(answer["text"])


def test_buf_curl_sees_a_clear_error(demo: Running) -> None:
    done = run(buf_curl(demo, {**REQUEST, "temperature": -1}))
    assert done.returncode != 0
    assert "invalid_argument" in done.stderr
    assert "temperature: -1; must be from 0 to 100" in done.stderr


@pytest.mark.node
def test_grpc_js_calls_streams_fails_and_cancels(demo: Running) -> None:
    seen: Any = run_json(["node", str(NODE_DIR / "grpc.js"), demo.grpc, str(ROOT / "protos"), "demo"])
    assert "Paris" in seen["text"]
    assert seen["streamed"] == seen["text"]
    assert seen["finish"] == "FINISH_REASON_STOP"
    assert (seen["kinds"][0], seen["kinds"][-1]) == ("start", "end")
    assert seen["failure"]["code"] == 5
    assert "no-such-model" in seen["failure"]["details"]
    assert seen["cancelled"] == 1


@pytest.mark.node
def test_the_openai_sdk_for_node(demo: Running) -> None:
    seen: Any = run_json(["node", str(NODE_DIR / "openai.js"), f"{demo.url}/v1", "demo"])
    assert seen["models"] == ["demo"]
    assert "Paris" in seen["text"]
    assert seen["streamed"] == seen["text"]
    assert seen["usage"]["completion_tokens"] > 0
    assert seen["completion"]
    assert seen["failure"]["status"] == 404
    assert seen["failure"]["code"] == "UNKNOWN_MODEL"


async def test_grpclib_a_client_without_grpc_core(demo: Running) -> None:
    host, _, port = demo.grpc.rpartition(":")
    message = pb.Message(role="user", content=QUESTION)
    request = pb.GenerateRequest(model="demo", messages=pb.MessageList(messages=[message]), temperature=0)
    request.max_tokens = 16
    async with Channel(host, int(port)) as channel:
        method = (f"/{GENERATE}", Cardinality.UNARY_UNARY, pb.GenerateRequest, pb.GenerateResponse)
        async with channel.request(*method, timeout=120) as call:
            await call.send_message(request, end=True)
            answer = await call.recv_message()
        assert answer is not None
        assert "Paris" in answer.text
        request.model = "nope"
        async with channel.request(*method, timeout=120) as call:
            await call.send_message(request, end=True)
            with pytest.raises(GRPCError, match="nope"):
                await call.recv_message()


def test_the_openai_sdk_for_python(demo: Running) -> None:
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        question: Any = [{"role": "user", "content": QUESTION}]
        answer = client.chat.completions.create(model="demo", messages=question, temperature=0, max_tokens=16)
        assert "Paris" in (answer.choices[0].message.content or "")
        stream = client.chat.completions.create(
            model="demo", messages=question, temperature=0, max_tokens=16, stream=True
        )
        parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(parts) == answer.choices[0].message.content
        assert len(parts) > 3
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nope", messages=question)
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="demo", messages=question, temperature=-1)


def test_curl_in_the_legacy_shape(demo: Running) -> None:
    def ask() -> dict[str, Any]:
        body = json.dumps({"prompt": "The capital of France is", "max_new_tokens": 7, "temperature": 0})
        return run_json(["curl", "-sS", f"{demo.url}/v1/generate", "-H", "Content-Type: application/json", "-d", body])

    first, second = ask(), ask()
    assert first["model"] == "demo"
    assert "Paris" in first["output"]
    assert (first["cached"], second["cached"]) == (False, True)
    assert second["output"] == first["output"]


def test_curl_reads_a_batch_a_stream_and_the_models(demo: Running, tmp_path: Path) -> None:
    def post(path: str, body: object) -> str:
        data = json.dumps(body)
        return run(["curl", "-sSN", demo.url + path, "-H", "Content-Type: application/json", "-d", data]).stdout

    batch = json.loads(post("/v1/generate/batch", {"prompts": ["One, two,", "A, B,"], "max_new_tokens": 4}))
    assert batch["model"] == "demo"
    assert len(batch["results"]) == 2
    assert all(r["output"] and r["completion_tokens"] == 4 for r in batch["results"])
    stream = post("/v1/stream", {"prompt": "One, two,", "max_new_tokens": 4})
    assert stream.count("data:") >= 3
    models = run_json(["curl", "-sS", f"{demo.url}/v1/models"])
    assert models["object"] == "list"
    assert models["default_model"] == "demo"
    assert models["models"] == ["demo"]
