"""Answers that tell how they were routed, written as bytes: the head and what follows it leave together."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11

from polyroute.core.event import Route
from polyroute.server.rest.answer_headers import route_lines
from polyroute.server.rest.frame import FRAME
from polyroute.server.rest.sending import Sending

_JSON: Final = "Content-Type: application/json\r\n"
_EVENTS: Final = (
    "Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
)


class RoutedAnswer(web.StreamResponse):
    """A whole answer: `body` is its JSON."""

    def __init__(self, http: web.Request, body: bytes, route: Route) -> None:
        super().__init__()
        self._http = http
        self._json = body
        self._route = route
        self._keeps = http.keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether the connection goes on after it."""
        return self._keeps

    def force_close(self) -> None:
        """The connection ends with this answer."""
        self._keeps = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Writes nothing: the head waits for the body."""
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Writes it; raises `ConnectionError` where the caller has left."""
        own = f"{_JSON}{route_lines(self._route)}Content-Length: {len(self._json)}\r\n"
        await self._http.writer.write_eof(_head(self._http, own, self._keeps) + self._json)


class RoutedStream(web.StreamResponse):
    """An answer whose events go out as they come; the head leaves with the first of them.

    In chunks (RFC 9112, 7.1), or up to the end of the connection where the caller speaks HTTP/1.0.
    """

    def __init__(self, http: web.Request, route: Route) -> None:
        super().__init__()
        self._writer = http.writer
        self._sending = Sending(http)
        self._in_chunks = http.version >= HttpVersion11
        self._keeps = self._in_chunks and http.keep_alive and not http[FRAME].last
        own = _EVENTS + route_lines(route) + ("Transfer-Encoding: chunked\r\n" if self._in_chunks else "")
        self._head = _head(http, own, self._keeps)
        self._held = b""

    @property
    def keep_alive(self) -> bool:
        """Whether the connection goes on after it."""
        return self._keeps

    @property
    def prepared(self) -> bool:
        """Yes: its head can be changed no more."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Does nothing more."""
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing more: `end` has ended it, or nobody does."""

    def hold(self, events: bytes) -> None:
        """Has events leave together with what is written next."""
        self._held += events

    async def send(self, events: bytes) -> None:
        """Writes events, and waits while the caller is behind; raises `ConnectionError` where it does not catch up."""
        framed = self._framed(events)
        if not self._sending.at_once(framed):
            await self._sending.write(self._writer.write, framed)

    async def end(self, events: bytes) -> None:
        """Writes the last events and the end of the body; raises as `send`."""
        last = self._framed(events)
        await self._sending.write(self._writer.write_eof, last + b"0\r\n\r\n" if self._in_chunks else last)

    def break_off(self) -> None:
        """The connection ends here, in the middle of the body: no client can take it for a whole answer."""
        self._keeps = False

    def _framed(self, events: bytes) -> bytes:
        if self._held:
            events, self._held = self._held + events, b""
        framed = b"%x\r\n%b\r\n" % (len(events), events) if self._in_chunks else events
        if self._head:
            framed, self._head = self._head + framed, b""
        return framed


def _head(http: web.BaseRequest, own: str, keeps: bool) -> bytes:
    """The status line and all headers: those of the answer's `own`, and what every answer has."""
    version = http.version
    if version >= HttpVersion11:
        connection = "" if keeps else "Connection: close\r\n"
    else:
        connection = "Connection: keep-alive\r\n" if keeps else ""
    return (
        f"HTTP/{version.major}.{version.minor} 200 OK\r\n{own}X-Request-ID: {http[FRAME].request_id}\r\n"
        f"{_always(int(time.time()))}{connection}\r\n"
    ).encode("ascii")


@lru_cache(1)
def _always(now_s: int) -> str:
    date = formatdate(now_s, usegmt=True)
    return f"X-Content-Type-Options: nosniff\r\nDate: {date}\r\nServer: {SERVER_SOFTWARE}\r\n"
