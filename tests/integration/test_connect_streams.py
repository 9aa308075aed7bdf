"""Streams by the Connect protocol: events as they come, how they end, and who leaves early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.config import LimitsConfig
from polyroute.core.errors import PeerFailed
from polyroute.server.rest import app
from tests.integration.connect_client import STREAM, Caller, calling, details, envelope, envelopes_of
from tests.integration.grpc_serving import Serving, serving, settings_for
from tests.integration.rest_serving import WAIT_S, until


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


async def test_a_stream_has_start_deltas_and_end(caller: Caller, echo: EchoBackend) -> None:
    echo.script = Script(texts=["a", "b"])
    streamed = await caller.stream({"prompt": "x", "requestId": "mine"})
    first, *deltas, last = streamed.messages
    assert first["start"]["requestId"] == "mine"
    assert first["start"]["route"]["model"] == "org/echo"
    assert [message["delta"]["text"] for message in deltas] == ["a", "b"]
    assert [message.get("sequence", "0") for message in streamed.messages] == ["0", "1", "2", "3"]
    assert last["end"]["finishReason"] == "FINISH_REASON_STOP"
    assert streamed.end == {"metadata": {"x-request-id": ["mine"]}}


async def test_events_go_out_as_they_come(caller: Caller, echo: EchoBackend) -> None:
    echo.script = Script(texts=["a", "b"], gate=(gate := asyncio.Event()), gate_after=1)
    sent = {"Content-Type": "application/connect+json"}
    async with caller.client.post(f"{caller.url}/{STREAM}", data=envelope({"prompt": "x"}), headers=sent) as answer:
        assert answer.headers["X-Accel-Buffering"] == "no"
        seen = b""
        while b'"a"' not in seen:
            seen += await answer.content.readany()
        assert b'"b"' not in seen
        gate.set()
        seen += await answer.read()
    assert envelopes_of(seen)[-1][0] == 2


async def test_a_stream_that_fails_at_once_is_nothing_but_its_end(caller: Caller) -> None:
    streamed = await caller.stream({"model": "nobody", "prompt": "x"})
    assert streamed.messages == []
    assert streamed.end["error"]["code"] == "not_found"
    assert details(streamed.end["error"])["google.rpc.ErrorInfo"].reason == "UNKNOWN_MODEL"


async def test_a_stream_that_fails_midway_ends_with_the_error(caller: Caller, echo: EchoBackend) -> None:
    echo.script = Script(texts=["a", "b"], error=PeerFailed("cut"), error_after=1)
    streamed = await caller.stream({"prompt": "x"})
    assert [message["delta"]["text"] for message in streamed.messages[1:]] == ["a"]
    assert streamed.end["error"]["code"] == "unavailable"
    assert "cut" in streamed.end["error"]["message"]


async def test_what_is_unexpected_stays_in_the_log(caller: Caller, echo: EchoBackend) -> None:
    echo.script = Script(texts=["a", "b"], error=RuntimeError("secret text"), error_after=1)
    streamed = await caller.stream({"prompt": "x"})
    assert streamed.end["error"]["code"] == "internal"
    assert "secret text" not in json.dumps(streamed.end)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "the body has 0 bytes"),
        (envelope({"prompt": "x"}) + b"more", "send one message"),
        (envelope({"prompt": "x"})[:-1], "send one message"),
        (envelope({"prompt": "x"}, 1), "marked as compressed"),
        (envelope({}, 2), "the envelope has the flags 2"),
        (envelope({"prompt": "x", "stream": True}), "stream: is no field of polyroute.v1.GenerateRequest"),
    ],
)
async def test_an_envelope_that_is_none_is_refused(caller: Caller, raw: bytes, problem: str) -> None:
    streamed = await caller.stream(raw)
    assert streamed.end["error"]["code"] == "invalid_argument"
    assert problem in streamed.end["error"]["message"]


async def test_compressed_streams_are_not_taken(caller: Caller) -> None:
    streamed = await caller.stream({"prompt": "x"}, {"Connect-Content-Encoding": "gzip"})
    assert streamed.end["error"]["code"] == "unimplemented"


async def test_a_connection_that_is_old_ends_with_its_stream(echo: EchoBackend, tmp_path: Path) -> None:
    chosen = settings_for(echo, folder=tmp_path, limits=LimitsConfig(max_connection_age=0.001))
    sent = {"Content-Type": "application/connect+json"}
    async with serving(echo, folder=tmp_path, settings=chosen) as served, calling(served.server) as caller:
        loop = asyncio.get_running_loop()
        url, end = f"{caller.url}/{STREAM}", loop.time() + WAIT_S
        while loop.time() < end:
            async with caller.client.post(url, data=envelope({"prompt": "x"}), headers=sent) as answer:
                assert envelopes_of(await answer.read())[-1][0] == 2
            if answer.headers.get("Connection") == "close":
                return
    pytest.fail("every stream left its connection as it was")


async def test_a_deadline_ends_a_stream(caller: Caller, echo: EchoBackend) -> None:
    echo.script = Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=1)
    streamed = await caller.stream({"prompt": "x"}, {"Connect-Timeout-Ms": "200"})
    assert streamed.end["error"]["code"] == "deadline_exceeded"
    assert echo.open == 0


@pytest.mark.parametrize("gate_after", [0, 1], ids=["before the first token", "midway"])
async def test_a_caller_that_leaves_stops_the_work_and_is_told_of_once(
    caller: Caller, echo: EchoBackend, gate_after: int, capsys: pytest.CaptureFixture[str]
) -> None:
    echo.script = Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=gate_after)
    asking = asyncio.create_task(caller.stream({"prompt": "x"}))
    await until(lambda: echo.open == 1)
    asking.cancel()
    await until(lambda: echo.open == 0)
    assert echo.closed_early == 1
    echo.script = Script()
    assert (await caller.stream({"prompt": "y"}, {"X-Request-ID": "the-next"})).end["metadata"]
    told = [line for line in capsys.readouterr().out.splitlines() if "call.finished" in line]
    assert ["CANCELLED" in line for line in told] == [True, False]


async def test_a_caller_that_does_not_read_is_left(
    tmp_path: Path, echo: EchoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "STALL_S", 0.1)
    echo.script = Script(texts=["x" * 10_000] * 20_000)
    sent = {"Content-Type": "application/connect+json"}
    async with serving(echo, folder=tmp_path) as served, calling(served.server) as caller:
        url = f"{caller.url}/{STREAM}"
        async with caller.client.post(url, data=envelope({"prompt": "x"}), headers=sent) as answer:
            assert answer.status == 200
            await until(lambda: echo.open == 0)
    assert echo.closed_early == 1
