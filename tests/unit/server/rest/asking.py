"""Requests as the edge hands them on, whose answers are kept as they are written."""

from __future__ import annotations

from typing import Any, cast

from aiohttp import HttpVersion, HttpVersion11, web
from aiohttp.test_utils import make_mocked_request

from polyroute.core.call import Entrance
from polyroute.server.patience import Patience
from polyroute.server.rest.frame import FRAME, Frame


class Writer:
    """Takes what is written, each write by itself."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.ended = False

    async def write(self, chunk: bytes) -> None:
        self.writes.append(chunk)

    async def write_eof(self, chunk: bytes = b"") -> None:
        self.writes.append(chunk)
        self.ended = True


def asked(version: HttpVersion = HttpVersion11, *, keeps: bool = True, last: bool = False) -> web.Request:
    http = make_mocked_request("POST", "/", version=version, writer=cast(Any, Writer()))
    http._message = http._message._replace(should_close=not keeps)  # as the parser says it
    http[FRAME] = Frame(Entrance("http", "POST /"), "my-id", 0.0, Patience(60), last=last)
    return http


def writes(http: web.Request) -> list[bytes]:
    return cast(Writer, http.writer).writes
