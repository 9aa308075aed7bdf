"""A plain path is answered without aiohttp's application, and no caller can tell; HTTP stays as it is on both ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from polyroute.backends.echo import EchoBackend, Script
from tests.integration.rest_serving import Rest, rest_over, until

CHAT = {"messages": [{"role": "user", "content": "one two"}]}
BODIES: dict[str, object] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "one two"},
    "/v1/generate": {"prompt": "one two"},
    "/v1/generate/batch": {"prompts": ["one", "two"]},
    "/v1/stream": {"prompt": "one two"},
}
ENDS = b"Connection: close\r\n"


@pytest.fixture
def echo() -> EchoBackend:
    return EchoBackend("m")


@pytest.fixture
async def rest(echo: EchoBackend) -> AsyncIterator[Rest]:
    async with rest_over(echo) as running:
        yield running


def posted(path: str, body: object = None, *, version: str = "1.1", headers: bytes = b"") -> bytes:
    sent = json.dumps(BODIES[path.partition("?")[0]] if body is None else body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
    return head.encode() + headers + b"\r\n" + sent


@asynccontextmanager
async def connected(rest: Rest) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    url = urlsplit(rest.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        async with asyncio.timeout(30):
            yield reader, writer
    finally:
        writer.close()


async def to_the_end(rest: Rest, *parts: bytes) -> bytes:
    """What comes until the server ends the connection."""
    async with connected(rest) as (reader, writer):
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await reader.read()


async def one(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next answer, which says its length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
    return head, await reader.readexactly(int(length.split(b": ")[1]))


def names(head: bytes) -> list[bytes]:
    first, *lines = head.split(b"\r\n\r\n")[0].split(b"\r\n")
    return [first, *sorted(line.split(b":")[0] for line in lines)]


@pytest.mark.parametrize("path", BODIES)
async def test_the_application_answers_alike(rest: Rest, path: str) -> None:
    plain = await to_the_end(rest, posted(path, headers=ENDS))
    queried = await to_the_end(rest, posted(path + "?x=1", headers=ENDS))
    assert plain.startswith(b"HTTP/1.1 200 OK\r\n")
    assert names(plain) == names(queried)
    assert len(plain.partition(b"\r\n\r\n")[2]) == len(queried.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("path", [*BODIES, "/v1/chat/completions?x=1"])
async def test_an_error_is_told_alike(rest: Rest, path: str) -> None:
    told = await to_the_end(rest, posted(path, {"nonsense": 1}, headers=ENDS + b"X-Request-ID: mine\r\n"))
    assert told.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nX-Request-ID: mine\r\n" in told
    assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["request_id"] == "mine"


async def test_other_methods_of_a_plain_path_are_refused(rest: Rest) -> None:
    for method in ("GET", "HEAD", "PUT"):
        request = f"{method} /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        head = (await to_the_end(rest, request.encode())).partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 405 "), method
        assert b"\r\nAllow: POST" in head


async def test_an_old_caller_is_answered_as_old_callers_are(rest: Rest) -> None:
    told = await to_the_end(rest, posted("/v1/chat/completions", version="1.0"))
    assert told.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"Connection:" not in told
    async with connected(rest) as (reader, writer):
        for _ in range(2):
            writer.write(posted("/v1/chat/completions", version="1.0", headers=b"Connection: keep-alive\r\n"))
            head, _ = await one(reader)
            assert b"\r\nConnection: keep-alive\r\n" in head


async def test_an_old_caller_gets_a_stream_until_the_connection_ends(rest: Rest) -> None:
    asked = posted("/v1/stream", version="1.0", headers=b"Connection: keep-alive\r\n")
    head, _, body = (await to_the_end(rest, asked)).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body.startswith(b"event: start\n")
    assert body.split(b"\n\n")[-2].startswith(b"event: end\n")


async def test_requests_may_come_at_once(rest: Rest, echo: EchoBackend) -> None:
    """Their answers come in the order of the requests, each on its own."""
    first = posted("/v1/generate", headers=b"X-Request-ID: first\r\n")
    second = posted("/v1/generate?x=1", headers=b"X-Request-ID: second\r\n")
    third = posted("/v1/generate", {"nonsense": 1}, headers=b"X-Request-ID: third\r\n" + ENDS)
    async with connected(rest) as (reader, writer):
        writer.write(first + second + third)
        for name in ("first", "second", "third"):
            head, _ = await one(reader)
            assert f"\r\nX-Request-ID: {name}\r\n".encode() in head
        assert await reader.read() == b""
    assert len(echo.calls) == 2


async def ask_before_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends a request whose body goes once the server has said that it may."""
    head, _, body = posted("/v1/generate", headers=b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)


async def test_who_expects_to_be_told_to_go_on_is(rest: Rest) -> None:
    async with connected(rest) as (reader, writer):
        await ask_before_the_body(reader, writer)
        assert (await one(reader))[0].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_body_may_come_later_than_its_head(rest: Rest) -> None:
    head, _, body = posted("/v1/generate", {"prompt": "x" * 3000}).partition(b"\r\n\r\n")
    async with connected(rest) as (reader, writer):
        for part in (head + b"\r\n\r\n", body[:1], body[1:2000], body[2000:]):
            writer.write(part)
            await writer.drain()
        assert (await one(reader))[0].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_body_may_come_in_chunks(rest: Rest) -> None:
    body = json.dumps(CHAT).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, body[i : i + 1]) for i in range(len(body))) + b"0\r\n\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    async with connected(rest) as (reader, writer):
        for _ in range(2):
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
            told, _ = await one(reader)
            assert told.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_large_body_that_came_while_nobody_read_is_read_to_its_end(rest: Rest, echo: EchoBackend) -> None:
    """More than the server reads ahead: reading pauses behind the answer before, and goes on after it."""
    gate, prompt = asyncio.Event(), "x" * 3_000_000
    echo.script = Script(gate=gate)
    async with connected(rest) as (reader, writer):
        writer.write(posted("/v1/generate") + posted("/v1/generate", {"prompt": prompt}))
        await until(lambda: echo.open == 1)
        gate.set()
        for _ in range(2):
            assert (await one(reader))[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert echo.calls[1].request.prompt == prompt


async def test_more_requests_than_are_read_ahead_may_come_at_once_after_one_whose_body_came_late(rest: Rest) -> None:
    """The late one stays in the count by which aiohttp's parser stops reading ahead, at 32."""
    async with connected(rest) as (reader, writer):
        await ask_before_the_body(reader, writer)
        await one(reader)
        writer.write(100 * posted("/v1/generate"))
        for _ in range(100):
            assert (await one(reader))[0].startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/generate?x=1"])
async def test_an_answer_in_progress_ends_its_connection_once_the_server_drains(
    rest: Rest, echo: EchoBackend, path: str
) -> None:
    gate = asyncio.Event()
    echo.script = Script(gate=gate)
    asking = asyncio.create_task(to_the_end(rest, posted(path)))
    await until(lambda: echo.open == 1)
    rest.draining = True
    gate.set()
    head, _, body = (await asking).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close" in head
    assert json.loads(body)["output"]
