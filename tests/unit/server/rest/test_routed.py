"""The heads that are written without aiohttp's header map, for each kind of connection."""

from __future__ import annotations

from typing import Any, cast

import pytest
from aiohttp import HttpVersion, HttpVersion10, HttpVersion11, web

from polyroute.core.event import Attempt, CacheResult, Route
from polyroute.server.rest.routed import RoutedAnswer, RoutedStream
from tests.unit.server.rest.asking import asked, writes

ROUTE = Route(
    requested="r",
    model="m\r\nX-Bad: 1",
    version="é",
    cache=CacheResult.HIT,
    attempts=(Attempt("d"), Attempt("e")),
    reasons=("one", "two"),
)


async def answered(http: web.Request, body: bytes = b"{}", *, closes: bool = False) -> tuple[list[str], bytes, bool]:
    """The lines of the head, the body, and whether the connection goes on."""
    answer = RoutedAnswer(http, body, ROUTE)
    if closes:
        answer.force_close()
    await answer.prepare(http)
    await answer.write_eof()
    (written,) = writes(http)
    head, _, told = written.partition(b"\r\n\r\n")
    return head.decode("ascii").split("\r\n"), told, answer.keep_alive


async def test_a_whole_answer_is_one_write_with_every_fact_of_its_route() -> None:
    lines, body, _ = await answered(asked(), b'{"a":1}')
    assert lines[0] == "HTTP/1.1 200 OK"
    told = dict(line.split(": ", 1) for line in lines[1:])
    assert body == b'{"a":1}'
    assert told.pop("Date").endswith(" GMT")
    assert told.pop("Server")
    assert told.pop("X-Polyroute-Route").startswith('{"requested":"r"')
    assert told == {
        "Content-Type": "application/json",
        "X-Polyroute-Model": "m\\r\\nX-Bad: 1",
        "X-Polyroute-Version": "\\xe9",
        "X-Polyroute-Cache": "hit",
        "X-Polyroute-Attempts": "2",
        "X-Polyroute-Reasons": "one; two",
        "Content-Length": "7",
        "X-Request-ID": "my-id",
        "X-Content-Type-Options": "nosniff",
    }


@pytest.mark.parametrize(
    ("version", "keeps", "closes", "told"),
    [
        (HttpVersion11, True, False, None),
        (HttpVersion11, False, False, "close"),
        (HttpVersion11, True, True, "close"),
        (HttpVersion10, False, False, None),
        (HttpVersion10, True, False, "keep-alive"),
        (HttpVersion10, True, True, None),
    ],
)
async def test_the_head_says_what_becomes_of_the_connection(
    version: HttpVersion, keeps: bool, closes: bool, told: str | None
) -> None:
    lines, _, kept = await answered(asked(version, keeps=keeps), closes=closes)
    assert lines[0] == f"HTTP/{version.major}.{version.minor} 200 OK"
    assert kept is (keeps and not closes)
    assert [line.partition(": ")[2] for line in lines if line.startswith("Connection")] == ([told] if told else [])


async def test_the_head_of_a_stream_leaves_with_its_first_events_and_its_end_with_the_last() -> None:
    http = asked()
    stream = RoutedStream(http, ROUTE)
    assert stream.prepared
    await stream.send(b"data: one\n\n")
    await stream.send(b"data: two\n\n")
    await stream.end(b"data: three\n\n")
    first, second, third = writes(http)
    head, _, body = first.partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert b"\r\nContent-Type: text/event-stream; charset=utf-8\r\n" in head
    assert body == b"b\r\ndata: one\n\n\r\n"
    assert second == b"b\r\ndata: two\n\n\r\n"
    assert third == b"d\r\ndata: three\n\n\r\n0\r\n\r\n"
    assert cast(Any, http.writer).ended
    assert stream.keep_alive


async def test_an_old_caller_gets_a_stream_up_to_the_end_of_the_connection() -> None:
    http = asked(HttpVersion10)
    stream = RoutedStream(http, ROUTE)
    await stream.end(b"data: one\n\n")
    head, _, body = b"".join(writes(http)).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"Connection" not in head
    assert body == b"data: one\n\n"
    assert not stream.keep_alive


async def test_a_stream_says_that_its_connection_ends_where_that_is_old_or_breaks_off() -> None:
    http = asked(last=True)
    stream = RoutedStream(http, ROUTE)
    await stream.send(b"data: one\n\n")
    assert b"\r\nConnection: close\r\n" in writes(http)[0]
    assert not stream.keep_alive
    broken = RoutedStream(asked(), ROUTE)
    broken.break_off()
    await broken.write_eof()
    assert not broken.keep_alive
