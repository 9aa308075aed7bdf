"""Unary calls by the Connect protocol: the same services as over gRPC, and the same errors."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.errors import Overloaded
from polyroute.server.rest.connect import service
from polyroute.v1 import inference_pb2 as pb
from tests.integration.connect_client import GENERATE, STREAM, Caller, calling
from tests.integration.grpc_serving import Serving, refused, serving
from tests.integration.rest_serving import until
from tests.lines import captured_lines

PROTOS = Path(__file__).parents[2] / "protos"


@pytest.fixture
def echo() -> EchoBackend:
    return EchoBackend("org/echo")


@pytest.fixture
async def served(echo: EchoBackend, tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(echo, folder=tmp_path) as running:
        yield running


@pytest.fixture
async def caller(served: Serving) -> AsyncIterator[Caller]:
    async with calling(served.server) as client:
        yield client


async def test_an_answer_is_that_of_grpc(caller: Caller, served: Serving) -> None:
    told = await caller.call(GENERATE, {"prompt": "hello", "requestId": "mine", "seed": 7})
    assert told.status == 200
    assert told.headers["X-Request-ID"] == told.body["requestId"] == "mine"
    assert told.headers["Content-Type"] == "application/json"
    assert told.body["text"] == await served.text("hello")
    assert told.body["route"]["model"] == "org/echo"
    assert told.body["finishReason"] == "FINISH_REASON_STOP"


async def test_fields_go_by_either_name_and_the_request_id_by_header(caller: Caller) -> None:
    told = await caller.call(GENERATE, {"prompt": "a b c", "max_tokens": 1}, {"X-Request-ID": "by-header"})
    assert told.body["requestId"] == told.headers["X-Request-ID"] == "by-header"
    assert told.body["finishReason"] == "FINISH_REASON_LENGTH"


async def test_models_and_plans_are_told(caller: Caller) -> None:
    listed = await caller.call("polyroute.v1.ModelService/ListModels", {})
    assert [model["id"] for model in listed.body["models"]] == ["org/echo"]
    one = await caller.call("polyroute.v1.ModelService/GetModel", {"model": "org/echo"})
    assert one.body["model"]["state"] == "MODEL_STATE_WARM"
    plan = await caller.call("polyroute.v1.ModelService/ExplainRoute", {"request": {"prompt": "x"}})
    assert plan.body["attempts"][0]["deployment"] == "org/echo"


async def test_an_operator_on_this_machine_has_the_admin_service(caller: Caller) -> None:
    told = await caller.call("polyroute.v1.AdminService/LoadModel", {"model": "org/echo", "wait": True})
    assert told.status == 200
    assert told.body["model"]["id"] == "org/echo"


BAD: list[tuple[object, str, str]] = [
    ({"prompt": "x", "max_token": 1}, "max_token", "is no field of polyroute.v1.GenerateRequest; did you mean `max_t"),
    ({"messages": {"messages": [{"rol": "user"}]}}, "messages.messages[0].rol", "did you mean `role`?"),
    ({"prompt": 3}, "prompt", "must be a string, not 3"),
    ({"prompt": "x", "maxTokens": "many"}, "max_tokens", "must be a whole number, not `many`"),
    ({"prompt": "x", "cache": {"mode": "BYPASS"}}, "cache.mode", "must be one of CACHE_MODE_UNSPECIFIED, "),
    ({"prompt": "x", "messages": {}}, "messages", "stands beside `prompt`"),
    ({"prompt": "x", "routing": []}, "routing", "must be an object, not a list"),
    ({"prompt": "x", "temperature": -1}, "temperature", ""),
    ({"prompt": "x", "maxTokens": 99999999999}, "", "does not fit polyroute.v1.GenerateRequest"),
    ([], "", "the message must be a JSON object"),
    (b"{", "", "not JSON"),
    (b'{"prompt": "a", "prompt": "b"}', "prompt", "is given twice"),
    (b"", "", "the body is empty"),
]


@pytest.mark.parametrize(("message", "field", "problem"), BAD)
async def test_a_bad_message_is_refused_by_its_field(
    caller: Caller, echo: EchoBackend, message: object, field: str, problem: str
) -> None:
    told = await caller.call(GENERATE, message)
    assert told.status == 400
    assert told.body["code"] == "invalid_argument"
    assert problem in told.body["message"]
    violation = told.details["google.rpc.BadRequest"].field_violations[0]
    assert violation.field == field
    assert told.details["google.rpc.ErrorInfo"].metadata["request_id"] == told.headers["X-Request-ID"]
    assert not echo.calls


async def test_errors_are_those_of_grpc(caller: Caller, served: Serving, echo: EchoBackend) -> None:
    echo.script = Script(error=Overloaded("`org/echo`: 64 waiting, limit 64", retry_after_s=2.5))
    told = await caller.call(GENERATE, {"prompt": "x"})
    over_grpc = await refused(served.inference.Generate(pb.GenerateRequest(prompt="x")))
    assert over_grpc.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert told.status == 429
    assert told.body["code"] == "resource_exhausted"
    assert told.body["message"] == over_grpc.message
    assert told.headers["Retry-After"] == "3"
    assert told.details["google.rpc.RetryInfo"].retry_delay.ToMilliseconds() == 2500
    assert told.details["google.rpc.ErrorInfo"].reason == over_grpc.details[ErrorInfo].reason
    debug = {one["type"]: one["debug"] for one in told.body["details"]}
    assert debug["google.rpc.RetryInfo"] == {"retryDelay": "2.500s"}


async def test_what_is_unexpected_stays_in_the_log(caller: Caller, echo: EchoBackend) -> None:
    echo.script = Script(error=RuntimeError("secret text"))
    told = await caller.call(GENERATE, {"prompt": "x"})
    assert (told.status, told.body["code"]) == (500, "internal")
    assert "secret text" not in json.dumps(told.body)


async def test_a_deadline_ends_the_work(caller: Caller, echo: EchoBackend) -> None:
    echo.script = Script(texts=["a"], gate=asyncio.Event())
    told = await caller.call(GENERATE, {"prompt": "x"}, {"Connect-Timeout-Ms": "50"})
    assert (told.status, told.body["code"]) == (504, "deadline_exceeded")
    assert echo.open == 0


async def test_a_deadline_ends_what_does_not_watch_it_itself(
    caller: Caller, echo: EchoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_LEEWAY_S", 0.0)
    monkeypatch.setattr(echo, "load", asyncio.Event().wait)
    load = {"model": "org/echo", "wait": True}
    told = await caller.call("polyroute.v1.AdminService/LoadModel", load, {"Connect-Timeout-Ms": "50"})
    assert (told.status, told.body["code"]) == (504, "deadline_exceeded")
    assert "0.05 s" in told.body["message"]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "soon", "12345678901"])
async def test_a_deadline_that_is_none_is_refused(caller: Caller, text: str) -> None:
    told = await caller.call(GENERATE, {"prompt": "x"}, {"Connect-Timeout-Ms": text})
    assert told.status == 400
    assert "Connect-Timeout-Ms" in told.body["message"]


async def test_a_caller_that_leaves_stops_the_work(caller: Caller, echo: EchoBackend) -> None:
    echo.script = Script(texts=["a"], gate=asyncio.Event())
    asking = asyncio.create_task(caller.call(GENERATE, {"prompt": "x"}))
    await until(lambda: echo.open == 1)
    asking.cancel()
    await until(lambda: echo.open == 0)
    assert echo.closed_early == 1


@pytest.mark.parametrize(
    ("method", "given", "expected"),
    [
        (GENERATE, "text/plain", "application/json, application/proto"),
        (GENERATE, "application/connect+json", "application/json, application/proto"),
        (STREAM, "application/json", "application/connect+json, application/connect+proto"),
    ],
)
async def test_other_content_types_are_not_taken(caller: Caller, method: str, given: str, expected: str) -> None:
    told = await caller.call(method, {"prompt": "x"}, {"Content-Type": given})
    assert told.status == 415
    assert told.body["error"]["type"] == "invalid_request_error"
    assert told.headers["Accept-Post"] == expected
    assert expected in told.body["error"]["message"]
    assert told.body["error"]["type"] == "invalid_request_error"


async def test_an_encoding_that_is_none_is_refused_by_its_name(caller: Caller, echo: EchoBackend) -> None:
    told = await caller.call(GENERATE, {"prompt": "x"}, {"Content-Encoding": "snappy"})
    assert (told.status, told.body["code"]) == (501, "unimplemented")
    assert "Content-Encoding: `snappy`; taken are identity, gzip, deflate" in told.body["message"]
    assert not echo.calls


async def test_other_protocol_versions_are_refused(caller: Caller) -> None:
    told = await caller.call(GENERATE, {"prompt": "x"}, {"Connect-Protocol-Version": "2"})
    assert (told.status, told.body["code"]) == (400, "invalid_argument")


async def test_a_method_that_is_none_is_unimplemented(caller: Caller) -> None:
    told = await caller.call("polyroute.v1.InferenceService/Nothing", {})
    assert (told.status, told.body["code"]) == (501, "unimplemented")
    async with caller.client.get(f"{caller.url}/{GENERATE}") as answer:
        assert answer.status == 405


async def test_a_server_that_leaves_refuses_new_calls_in_connects_own_way(caller: Caller, served: Serving) -> None:
    await served.server.gateway.drain(0)
    told = await caller.call(GENERATE, {"prompt": "x"})
    assert (told.status, told.body["code"]) == (503, "unavailable")
    assert told.details["google.rpc.ErrorInfo"].reason == "DRAINING"
    assert (await caller.stream({"prompt": "x"})).end["error"]["code"] == "unavailable"


async def test_calls_and_refusals_are_told_with_their_entrance(caller: Caller) -> None:
    with captured_lines() as logs:
        await caller.call(GENERATE, {"prompt": "x"})
        await caller.call(GENERATE, {"prompts": "my secret"})
        await caller.call("polyroute.v1.ModelService/GetModel", {"model": "nobody"})
    told = [(line["entrance"], line["outcome"]) for line in logs if "outcome" in line]
    assert told == [
        (f"POST /{GENERATE}", "ok"),
        (f"POST /{GENERATE}", "INVALID_ARGUMENT"),
        ("POST /polyroute.v1.ModelService/GetModel", "UNKNOWN_MODEL"),
    ]
    assert "my secret" not in str(logs)
    async with caller.client.get(f"{caller.url}/metrics") as answer:
        text = await answer.text()
    assert 'polyroute_rejected_total{face="rest",reason="INVALID_ARGUMENT"} 1.0' in text


@pytest.mark.parametrize("method", [GENERATE, STREAM])
async def test_buf_curl_is_answered(caller: Caller, method: str) -> None:
    buf = shutil.which("buf", path=str(Path(sys.executable).parent))
    assert buf is not None
    asked: dict[str, Any] = {"prompt": "hello from buf"}
    command = [buf, "curl", "--protocol", "connect", "--schema", str(PROTOS), "-d", json.dumps(asked)]
    done = await asyncio.to_thread(
        subprocess.run, [*command, f"{caller.url}/{method}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
    command[-1] = '{"model": "nobody", "prompt": "x"}'
    done = await asyncio.to_thread(
        subprocess.run, [*command, f"{caller.url}/{method}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    failed = json.loads(done.stderr)
    assert failed["code"] == "not_found"
    assert "nobody" in failed["message"]
