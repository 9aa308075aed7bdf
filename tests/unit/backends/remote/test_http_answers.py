"""Answers are read as RFC 9112 has it, however the bytes are cut, and within limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.backends.remote.http_answers import (
    MAX_ASIDE_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    HttpAnswers,
    NotHttp,
)

OK = b"HTTP/1.1 200 OK\r\n"


def told(*pieces: bytes) -> HttpAnswers:
    """What is known after these pieces, which answer a request."""
    answer = HttpAnswers()
    answer.begin()
    for piece in pieces:
        answer.feed(piece)
    return answer


def body(answer: HttpAnswers) -> bytes | None:
    """The body, where it is complete."""
    return answer.take() if answer.complete else None


@pytest.mark.parametrize(
    ("came", "content"),
    [
        (OK + b"Content-Length: 3\r\n\r\nabc", b"abc"),
        (OK + b"Content-Length: 0\r\n\r\n", b""),
        (OK + b"Content-Length: 3\r\n\r\nab", None),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nDigest: z\r\n\r\n", b"ab"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n", None),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2 \r\nab\r\n0\r\n\r\n", b"ab"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab", b"ab"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 199 More\r\n\r\n"
            + OK
            + b"Content-Length: 0\r\n\r\n",
            b"",
        ),
        (OK + b"\r\nabc", None),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", None),
    ],
)
def test_where_an_answer_ends(came: bytes, content: bytes | None) -> None:
    for pieces in ((came,), tuple(came[i : i + 1] for i in range(len(came)))):
        answer = told(*pieces)
        assert body(answer) == content
        assert answer.status in (200, 204, 304)
        assert "Link" not in answer.headers, "that of an interim answer"
        assert "Digest" not in answer.headers, "that came behind the body"


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=9), st.lists(st.integers(0, 300), max_size=9))
def test_the_body_is_what_was_sent_however_it_is_cut(chunks: list[bytes], cuts: list[int]) -> None:
    came = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (*chunks, b""))
    places = sorted(min(cut, len(came)) for cut in cuts)
    answer = told(*(came[start:end] for start, end in zip([0, *places], [*places, len(came)], strict=True)))
    assert body(answer) == b"".join(chunks)
    assert answer.reusable


@pytest.mark.parametrize(
    ("head", "ends"),
    [
        ("", True),
        ("Connection: close\r\n", True),
        ("Transfer-Encoding: Identity\r\n", True),
        ("Content-Length: 9\r\n", False),
        ("Transfer-Encoding: chunked\r\n", False),
        ("Transfer-Encoding: gzip\r\n", False),
    ],
)
def test_the_end_of_the_connection_completes_an_answer_without_a_length(head: str, *, ends: bool) -> None:
    came = OK + head.encode() + b"\r\n" + (b"3\r\nabc\r\n" if "chunked" in head else b"abc")
    for orderly in (True, False):
        answer = told(came)
        assert not answer.complete
        answer.end(orderly=orderly)
        assert answer.complete == (ends and orderly)
        assert not answer.reusable
        assert answer.take() == b"abc"


def test_what_is_left_before_its_end_is_not_complete_once_the_connection_closes() -> None:
    answer = told(OK + b"\r\nabc")
    answer.end(orderly=False)
    answer.feed(b"def")
    answer.end(orderly=True)
    assert (answer.complete, answer.take()) == (False, b"abc")


def test_before_its_head_is_there_nothing_is_complete() -> None:
    for came in (b"", b"HTTP/1.1 200 OK\r\nX: y", b"HTTP/1.1 100 Continue\r\n\r\n"):
        answer = told(came)
        answer.end(orderly=True)
        assert (answer.status, answer.complete, answer.begun) == (0, False, bool(came))


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (OK, True),
        (OK + b"Connection: keep-alive\r\n", True),
        (OK + b"Connection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_whether_another_request_may_follow(head: bytes, *, reusable: bool) -> None:
    answer = told(head + b"Content-Length: 1\r\n\r\nx")
    assert (answer.complete, answer.reusable) == (True, reusable)


def test_one_answer_after_the_other() -> None:
    answer = told(OK + b"X-A: 1\r\nContent-Length: 1\r\n\r\na")
    first = answer.headers
    assert answer.take() == b"a"
    answer.begin()
    assert (answer.status, answer.complete, answer.begun) == (0, False, False)
    answer.feed(b"HTTP/1.1 503 Busy\r\nContent-Length: 1\r\n\r\nb")
    assert (answer.status, body(answer), dict(answer.headers)) == (503, b"b", {"Content-Length": "1"})
    assert first["x-a"] == "1"


def test_what_comes_behind_an_answer_is_no_part_of_it_and_spoils_the_connection() -> None:
    for more in (OK + b"Content-Length: 1\r\n\r\nz", b"nonsense"):
        answer = told(OK + b"Content-Length: 1\r\n\r\na" + more)
        assert (answer.status, body(answer), answer.reusable) == (200, b"a", False)


def test_another_protocol_is_an_answer_without_a_body() -> None:
    for head in (b"", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"):
        answer = told(b"HTTP/1.1 101 Switching Protocols\r\n" + head + b"\r\n\x81\x02hi")
        assert (answer.status, body(answer), answer.reusable) == (101, b"", False)


def test_headers_as_they_are() -> None:
    answer = told(OK + b"Set: a\r\nset: b\r\nOdd:  \xff\xc3\xa9\t \r\nNone:\r\nContent-Length: 0\r\n\r\n")
    assert answer.headers.getall("SET") == ["a", "b"]
    assert answer.headers["odd"] == "\udcffé"
    assert answer.headers["none"] == ""


@pytest.mark.parametrize(
    "came",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\n\r\nabc",
        b"HTTP/1.1 199 More\r\nContent-Length: 3\r\n\r\nabc" + OK + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 199 More\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        OK + b"Content-Length: x\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc",
        OK + b"Bad: a\0b\r\n\r\n",
        OK + b"X: " + b"x" * MAX_HEADER_BYTES + b"\r\n\r\n",
        OK + b"X: x\r\n" * (MAX_HEADERS + 1) + b"\r\n",
    ],
)
def test_what_is_no_answer(came: bytes) -> None:
    answer = HttpAnswers()
    answer.begin()
    with pytest.raises(NotHttp):
        answer.feed(came)
    assert not answer.complete
    assert not answer.reusable


def test_what_is_wrong_is_quoted_and_what_came_before_it_is_kept() -> None:
    with pytest.raises(NotHttp, match="SSH-"):
        told(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    answer = told(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(NotHttp):
        answer.feed(b"1\r\na\r\nzz\r\n")
    assert answer.take() == b"a"


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (OK + b"X: ", b"x" * 1000),
        (OK, b"X: x\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ", b"x" * 1000),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;x=", b"x" * 1000),
    ],
)
def test_what_never_comes_to_a_body_is_refused_before_it_fills_the_memory(begins: bytes, goes_on: bytes) -> None:
    answer, times = told(begins), MAX_ASIDE_BYTES // len(goes_on) + 2
    with pytest.raises(NotHttp):
        told_on(answer, goes_on, times)


def told_on(answer: HttpAnswers, piece: bytes, times: int) -> None:
    for _ in range(times):
        answer.feed(piece)


def test_a_long_body_in_small_chunks_is_not_refused() -> None:
    answer = told(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    told_on(answer, b"1;a=b\r\na\r\n", MAX_ASIDE_BYTES)
    answer.feed(b"0\r\n\r\n")
    assert body(answer) == b"a" * MAX_ASIDE_BYTES
