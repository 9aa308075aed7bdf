"""A peer on a raw socket that does exactly what a test tells it to, and sees what becomes of its callers."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import orjson

WAIT_S = 60.0
"""Longest wait for something that must happen; how long it takes is no part of any test."""


@dataclass(frozen=True, slots=True)
class PeerRequest:
    """A request as it came over the wire; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: Connection

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


Play: TypeAlias = "Callable[[Connection, PeerRequest], Awaitable[None]]"


class Connection(asyncio.Protocol):
    """One caller's connection, as the peer sees it."""

    def __init__(self, peer: ScriptedPeer) -> None:
        self._peer = peer
        self.task: asyncio.Task[None] | None = None
        self.reader = asyncio.StreamReader(limit=2**26)
        self.gone = asyncio.Event()
        """Set once the caller has closed or reset the connection."""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # not by type: uvloop has transports of its own
        self._peer.connections.append(self)
        self.task = asyncio.create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self.reader.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self.reader.feed_eof()

    async def _serve(self) -> None:
        try:
            while (request := await self._request()) is not None:
                self._peer.requests.append(request)
                self._peer.arrived.set()
                await self._peer.play_for(request)(self, request)
        except (ConnectionError, asyncio.IncompleteReadError):
            return

    async def _request(self) -> PeerRequest | None:
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return PeerRequest(method, path, headers, body, self)

    async def send(self, *parts: bytes) -> None:
        """Writes, and waits until the caller must have it in its socket."""
        assert self.transport is not None
        self.transport.write(b"".join(parts))
        await asyncio.sleep(0)

    def close(self) -> None:
        """Ends the connection in good manners."""
        assert self.transport is not None
        self.transport.close()

    def reset(self) -> None:
        """Ends it with a TCP reset."""
        assert self.transport is not None
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def ended(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)


@dataclass(slots=True)
class ScriptedPeer:
    """Listens on a port of its own. `plays` says what to do, by path; `requests` and `connections` keep what came."""

    plays: dict[str, Play] = field(default_factory=dict)
    requests: list[PeerRequest] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    tls: ssl.SSLContext | None = None
    port: int = 0
    host: str = "127.0.0.1"
    _server: asyncio.Server | None = None

    def play_for(self, request: PeerRequest) -> Play:
        return self.plays.get(request.path, answering(b"nothing here", status="404 Not Found", kind="text/plain"))

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}"

    @property
    def open(self) -> int:
        """Connections that the caller has not closed."""
        return sum(not connection.gone.is_set() for connection in self.connections)

    def calls(self, path: str) -> list[PeerRequest]:
        return [request for request in self.requests if request.path == path]

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def hang_up(self) -> None:
        """Stops listening and resets every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self.connections:
            if not connection.gone.is_set():
                connection.reset()
            await connection.ended()


def head(kind: str, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """The head of an answer; without `length` it is chunked."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Type: {kind}", size, *headers, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; the empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def data(value: object) -> bytes:
    """A server-sent event with `value` as JSON, or bytes as they are."""
    return b"data: %b\n\n" % (value if isinstance(value, bytes) else orjson.dumps(value))


def said(text: str) -> bytes:
    """A part of a chat answer."""
    return data({"choices": [{"index": 0, "delta": {"content": text}}]})


END = (
    data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    + data({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    + data(b"[DONE]")
)
SSE = "text/event-stream; charset=utf-8"


def answering(body: bytes, *headers: str, kind: str = "application/json", status: str = "200 OK") -> Play:
    """Answers with a whole body."""

    async def play(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head(kind, *headers, status=status, length=len(body)), body)

    return play


def streaming(*events: bytes, headers: tuple[str, ...] = (), complete: bool = True) -> Play:
    """Answers with an event stream, a chunk an event; an incomplete one has no end of the body, and then closes."""

    async def play(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head(SSE, *headers))
        for event in events:
            await connection.send(chunk(event))
        if complete:
            await connection.send(chunk(b""))
        else:
            connection.close()

    return play


def models(*entries: dict[str, Any]) -> Play:
    """The list of models in OpenAI's form."""
    return answering(orjson.dumps({"object": "list", "data": list(entries) or [{"id": "m"}]}))


def in_turn(*plays: Play) -> Play:
    """Each play once, one request after the other; the last one from then on."""
    left = list(plays)

    async def play(connection: Connection, request: PeerRequest) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(connection, request)

    return play


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits until `condition` holds."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - what is waited for is in the kernel, and tells nobody
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"did not happen: {what}") from None
