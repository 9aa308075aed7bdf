"""Streams over REST: cut ones look cut, and callers that leave stop the work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import openai
import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.errors import PeerFailed
from polyroute.server.rest import app, sending
from tests.integration.rest_serving import Rest, rest_over, until

CHAT = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
STREAMS = {
    "/v1/stream": {"prompt": "hi"},
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "hi", "stream": True},
}
UNARY = {
    "/v1/generate": {"prompt": "hi"},
    "/v1/generate/batch": {"prompts": ["hi"] * 40},
    "/v1/chat/completions": {"messages": CHAT["messages"]},
    "/v1/completions": {"prompt": "hi"},
}


@pytest.fixture
def echo() -> EchoBackend:
    return EchoBackend("org/echo")


@pytest.fixture
async def rest(echo: EchoBackend) -> AsyncIterator[Rest]:
    async with rest_over(echo) as running:
        yield running


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("error", [PeerFailed("the peer ended its stream early"), ZeroDivisionError("secret text")])
async def test_a_stream_that_fails_midway_tells_it_and_breaks_off(
    rest: Rest, echo: EchoBackend, path: str, error: Exception
) -> None:
    echo.script = Script(texts=["a", "b", "c"], error=error, error_after=2)
    parts: list[bytes] = []

    async def read_all(answer: aiohttp.ClientResponse) -> None:
        async for part in answer.content.iter_any():
            parts.append(part)  # noqa: PERF401 - what came before the break counts

    async with rest.client.post(rest.url + path, json=STREAMS[path]) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await read_all(answer)
    read = b"".join(parts)
    assert b"[DONE]" not in read
    assert b"secret text" not in read
    assert b'"finish_reason":"' not in read
    last = read.decode().rstrip("\n").rsplit("\n\n", 1)[-1]
    told = json.loads(last.split("data: ", 1)[1])["error"]
    assert told["code"] == ("PEER_FAILED" if isinstance(error, PeerFailed) else "INTERNAL")
    assert last.startswith("event: error\n") is (path == "/v1/stream")
    status, _, _ = await rest.post("/v1/generate", {"prompt": "x", "max_new_tokens": 1})
    assert status == 200, "the next caller is served"


async def test_the_sdk_raises_where_a_stream_breaks_off(rest: Rest, echo: EchoBackend) -> None:
    echo.script = Script(texts=["a", "b"], error=PeerFailed("cut"), error_after=1)
    async with openai.AsyncOpenAI(base_url=f"{rest.url}/v1", api_key="x", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="org/echo", messages=[{"role": "user", "content": "x"}], stream=True
        )
        with pytest.raises(openai.APIError, match="cut"):
            async for _ in stream:
                pass


@pytest.mark.parametrize("path", UNARY)
async def test_a_caller_that_leaves_stops_a_whole_answer(rest: Rest, echo: EchoBackend, path: str) -> None:
    echo.script = Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=1)
    asking = asyncio.create_task(rest.post(path, UNARY[path]))
    await until(lambda: echo.open > 0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: echo.open == 0)
    assert echo.closed_early == len(echo.calls)


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("gate_after", [0, 1], ids=["before the first token", "midway"])
async def test_a_caller_that_leaves_stops_a_stream(rest: Rest, echo: EchoBackend, path: str, gate_after: int) -> None:
    echo.script = Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=gate_after)
    host, port = urlsplit(rest.url).hostname, urlsplit(rest.url).port
    reader, writer = await asyncio.open_connection(host, port)
    body = json.dumps(STREAMS[path]).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await until(lambda: echo.open == 1)
    if gate_after:
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await until(lambda: echo.open == 0)
    assert echo.closed_early == 1


async def test_a_caller_that_leaves_while_it_is_written_to_is_no_crash(
    rest: Rest, echo: EchoBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(self: sending.Sending, chunk: bytes) -> bool:
        assert self._http.transport is not None
        self._http.transport.abort()
        raise ConnectionResetError("Cannot write to closing transport")

    monkeypatch.setattr(sending.Sending, "at_once", gone)
    with pytest.raises(aiohttp.ClientError):
        await rest.post("/v1/stream", {"prompt": "x"})
    await until(lambda: echo.open == 0)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("aiohttp")] == []


async def test_a_caller_that_does_not_read_holds_the_model_back(rest: Rest, echo: EchoBackend) -> None:
    """A slow reader costs bounded memory: the service waits until what was sent is taken."""
    reached = 0

    async def pause(place: int) -> None:
        nonlocal reached
        reached = place

    echo.script = Script(texts=["x" * 10_000] * 20_000, pause=pause)
    async with rest.client.post(rest.url + "/v1/stream", json={"prompt": "x"}) as answer:
        assert answer.status == 200
        before = -1
        while before != reached:
            before = reached
            await asyncio.sleep(0.5)
        assert reached < 19_000
    await until(lambda: echo.open == 0)


async def test_each_token_is_sent_when_it_is_there(rest: Rest, echo: EchoBackend) -> None:
    gates = [asyncio.Event(), asyncio.Event()]

    async def pause(place: int) -> None:
        if place:
            await gates[place - 1].wait()

    echo.script = Script(texts=["first", "second"], pause=pause)
    async with rest.client.post(rest.url + "/v1/stream", json={"prompt": "x"}) as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        seen = b""
        while b"first" not in seen:
            seen += await answer.content.readany()
        assert b"second" not in seen
        gates[0].set()
        while b"second" not in seen:
            seen += await answer.content.readany()
        assert b"event: end" not in seen
        gates[1].set()
        assert b"event: end" in await answer.content.read()


async def test_a_caller_that_stops_reading_holds_nothing_for_long(
    echo: EchoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "STALL_S", 0.1)
    echo.script = Script(texts=["x" * 1_000_000] * 100)
    async with rest_over(echo) as rest:
        url = urlsplit(rest.url)
        _, writer = await asyncio.open_connection(url.hostname, url.port, limit=1024)
        try:
            body = json.dumps(STREAMS["/v1/stream"]).encode()
            writer.write(
                b"POST /v1/stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )
            await until(lambda: echo.closed_early == 1)
            assert echo.open == 0
        finally:
            writer.close()
