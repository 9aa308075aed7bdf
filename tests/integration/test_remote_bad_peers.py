"""Every way a peer can misbehave becomes the right error of the table, and leaves nothing open."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import traceback
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import cast

import aiohttp
import pytest

from polyroute.backends.remote.backend import RemoteBackend
from polyroute.core.call import Call
from polyroute.core.config import RemoteConfig
from polyroute.core.errors import (
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
    PeerFailed,
    PeerUnreachable,
    PolyrouteError,
    Unavailable,
)
from polyroute.core.event import Event, Finished, Started, Token
from polyroute.core.request import Message, Request
from tests.integration.conftest import Remote
from tests.integration.peers import (
    END,
    SSE,
    WAIT_S,
    Connection,
    PeerRequest,
    Play,
    ScriptedPeer,
    answering,
    chunk,
    data,
    head,
    in_turn,
    said,
    streaming,
    until,
)

CHAT = "/v1/chat/completions"
REQUEST = Request(model="m", messages=(Message("user", "hi"),))


def a_call(deadline_s: float | None = None) -> Call:
    return Call(REQUEST, "r1", deadline=None if deadline_s is None else time.monotonic() + deadline_s)


async def outcome(backend: RemoteBackend, call: Call) -> tuple[list[Event], PolyrouteError]:
    """What a call gave before it failed, and its error."""
    got: list[Event] = []
    async with aclosing(cast("AsyncGenerator[Event, None]", backend.stream(call))) as events:
        with pytest.raises(PolyrouteError) as raised:  # noqa: PT012
            async for event in events:
                got.append(event)  # noqa: PERF401
    return got, raised.value


async def reset(connection: Connection, _request: PeerRequest) -> None:
    connection.reset()


async def close(connection: Connection, _request: PeerRequest) -> None:
    connection.close()


def raw(*parts: bytes, then: Play | None = close) -> Play:
    async def play(connection: Connection, request: PeerRequest) -> None:
        await connection.send(*parts)
        if then is not None:
            await then(connection, request)

    return play


HTML = b"<html><body>Bad Gateway</body></html>"

BEFORE_THE_ANSWER = {
    "reset before it answers": (reset, PeerUnreachable, "before it answered"),
    "closed before it answers": (close, PeerUnreachable, "before it answered"),
    "closed amid the head": (raw(b"HTTP/1.1 200 OK\r\nContent-"), PeerUnreachable, "before it answered"),
    "not HTTP": (raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), PeerFailed, "did not answer in HTTP"),
    "a head too large": (raw(head(SSE, "X-A: " + "x" * 70_000)), PeerFailed, "did not answer in HTTP"),
    "a head without end": (
        raw(b"HTTP/1.1 200 OK\r\n", b"X-A: x\r\n" * 20_000, then=None),
        PeerFailed,
        "more than 128 hea",
    ),
    "a status that is none": (raw(b"HTTP/1.1 099 X\r\n\r\n" + b"x" * 600_000, then=None), PeerFailed, "in HTTP"),
    "an interim answer with a body": (
        raw(b"HTTP/1.1 199 X\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 600_000, then=None),
        PeerFailed,
        "did not answer in HTTP",
    ),
    "another protocol": (raw(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), PeerFailed, "answered 101"),
    "HTML with 200": (answering(HTML, kind="text/html"), PeerFailed, "text/html.*<html><body>Bad Gateway"),
    "a type that is no text": (answering(b"x", kind="\xff\xfe"), PeerFailed, r"with \\udcff\\udcfe instead of"),
    "a gigantic type": (answering(b"x", kind="x" * 15_000), PeerFailed, r"xxx\.\.\. \(15000 characters\) instead of"),
    "no content": (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), PeerFailed, "instead of"),
    "empty JSON": (answering(b""), PeerFailed, "is not JSON"),
    "wrong JSON": (answering(b'{"choices": ['), PeerFailed, 'is not JSON: {"choices"'),
    "JSON of another shape": (answering(b'{"result": "hello"}'), PeerFailed, "has no `choices`"),
    "JSON cut short": (raw(head("application/json", length=99), b'{"choi'), PeerFailed, "broke its answer off"),
    "wrong compression": (answering(b"plain", "Content-Encoding: gzip"), PeerFailed, "broke its answer off"),
    "a compression of its own": (answering(b"x", "Content-Encoding: br"), PeerFailed, "is coded as br"),
    "a redirect": (answering(b"", "Location: http://127.0.0.1:9/", status="302 Found"), PeerFailed, "answered 302"),
    "wrong JSON in the stream": (streaming(data(b"{nope"), END), PeerFailed, "is not JSON: {nope"),
    "HTML in the stream": (streaming(data(HTML), END), PeerFailed, "is not JSON: <html>"),
    "HTML as the stream": (streaming(HTML), PeerFailed, "without a `finish_reason`"),
    "an empty stream": (streaming(), PeerFailed, "without a `finish_reason`"),
    "not UTF-8": (streaming(data(b'{"choices":[{"delta":{"content":"\xff"}}]}'), END), PeerFailed, "is not JSON"),
    "a wrong type": (streaming(data({"choices": 5}), END), PeerFailed, "`choices` is no list"),
    "a gigantic line": (streaming(b"data: " + b"x" * 1_100_000), PeerFailed, "more than 1048576 bytes"),
    "an error first": (streaming(data({"error": {"message": "CUDA out of memory"}})), PeerFailed, "CUDA out of memory"),
    "only [DONE]": (streaming(data(b"[DONE]")), PeerFailed, "without a `finish_reason`"),
}


@pytest.mark.parametrize("name", BEFORE_THE_ANSWER)
async def test_before_the_answer_begins(scripted_peer: ScriptedPeer, remote: Remote, name: str) -> None:
    """Nothing has been yielded, so that another attempt may follow."""
    play, kind, says = BEFORE_THE_ANSWER[name]
    scripted_peer.plays[CHAT] = play
    got, error = await outcome(remote(), a_call())
    assert got == []
    assert type(error) is kind
    assert error.try_next
    with pytest.raises(kind, match=says):
        raise error
    assert f"`m` at {scripted_peer.url}: " in error.message
    assert len(error.message.encode()) < 400, "it can be told, and a status has room for it"
    assert len(scripted_peer.calls(CHAT)) == 1, "nothing is sent twice"


AMID_THE_ANSWER = {
    "reset": (raw(head(SSE), chunk(said("a")), then=None), reset, "broke its answer off"),
    "closed amid a chunk": (raw(head(SSE), chunk(said("a")), b"ff\r\ndata", then=None), close, "broke its answer off"),
    "closed between chunks": (streaming(said("a"), complete=False), None, "broke its answer off"),
    "ended without its end": (streaming(said("a")), None, "without a `finish_reason`"),
    "[DONE] without its end": (streaming(said("a"), data(b"[DONE]")), None, "without a `finish_reason`"),
    "ended amid an event": (streaming(said("a"), END[:60]), None, "without a `finish_reason`"),
    "an error": (streaming(said("a"), data({"error": "overheated"}), data(b"[DONE]")), None, "overheated"),
    "an error event": (
        streaming(said("a"), b'event: error\ndata: {"message":"hot"}\n\n'),
        None,
        "amid its answer: hot",
    ),
    "an unknown error": (streaming(said("a"), data({"error": {"why": 5}})), None, 'amid its answer: {"error"'),
    "wrong JSON": (streaming(said("a"), data(b"<html>"), END), None, "is not JSON: <html>"),
    "a gigantic line": (streaming(said("a"), b"x" * 2_000_000), None, "more than 1048576 bytes"),
    "wrong chunks": (raw(head(SSE), chunk(said("a")), then=None), raw(b"zz\r\nwhat\r\n"), "broke its answer off"),
    "broken off by its engine": (
        streaming(said("a"), data({"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}), data(b"[DONE]")),
        None,
        "abort",
    ),
}


@pytest.mark.parametrize("name", AMID_THE_ANSWER)
async def test_amid_the_answer(scripted_peer: ScriptedPeer, remote: Remote, name: str) -> None:
    """What came is passed on, and then the failure: never a clean end."""
    play, then, says = AMID_THE_ANSWER[name]
    scripted_peer.plays[CHAT] = play
    backend = remote()
    got: list[Event] = []
    events = cast("AsyncGenerator[Event, None]", backend.stream(a_call()))
    async with aclosing(events):
        got += [await anext(events), await anext(events)]
        if then is not None:
            await then(scripted_peer.connections[-1], scripted_peer.requests[-1])
        with pytest.raises(PeerFailed, match=says) as raised:
            await anext(events)
    assert isinstance(got[0], Started)
    assert got[1] == Token("a")
    assert len(raised.value.message) < 400


BEHIND_MORE = {
    "an error": (data({"error": "overheated"}), "overheated"),
    "wrong JSON": (data(b"<html>"), "is not JSON: <html>"),
    "a gigantic line": (b"x" * 2_000_000, "more than 1048576 bytes"),
    "nothing": (b"", "without a `finish_reason`"),
}


@pytest.mark.parametrize("name", BEHIND_MORE)
async def test_what_comes_at_once_with_a_failure_is_passed_on_before_it(
    scripted_peer: ScriptedPeer, remote: Remote, name: str
) -> None:
    wrong, says = BEHIND_MORE[name]
    scripted_peer.plays[CHAT] = raw(head(SSE) + chunk(said("a") + said("b") + said("c") + wrong) + chunk(b""))
    got, error = await outcome(remote(), a_call())
    assert isinstance(got[0], Started)
    texts = [text for event in got[1:] if isinstance(event, Token) for text in event.pieces or (event.text,)]
    assert texts == ["a", "b", "c"]
    assert isinstance(error, PeerFailed)
    assert says in error.message


STATUSES = [
    ("400 Bad Request", InvalidArgument),
    ("401 Unauthorized", PeerFailed),
    ("404 Not Found", PeerFailed),
    ("408 Request Timeout", PeerFailed),
    ("413 Payload Too Large", InvalidArgument),
    ("422 Unprocessable Entity", InvalidArgument),
    ("429 Too Many Requests", Overloaded),
    ("499 Client Closed Request", PeerFailed),
    ("500 Internal Server Error", PeerFailed),
    ("502 Bad Gateway", PeerFailed),
    ("503 Service Unavailable", Unavailable),
    ("504 Gateway Timeout", PeerFailed),
]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
async def test_statuses(scripted_peer: ScriptedPeer, remote: Remote, status: str, kind: type[PolyrouteError]) -> None:
    scripted_peer.plays[CHAT] = answering(b'{"error":{"message":"because"}}', "Retry-After: 7", status=status)
    got, error = await outcome(remote(), a_call())
    assert got == []
    assert type(error) is kind
    assert "because" in error.message
    assert error.retry_after_s == (7 if kind in (Overloaded, Unavailable) else None)


async def test_an_error_that_never_ends(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    part = head("text/plain", status="500 Internal Server Error") + chunk(b"it went wr")
    scripted_peer.plays[CHAT] = raw(part, then=None)
    _, error = await outcome(remote(), a_call())
    assert type(error) is PeerFailed
    assert error.message.endswith("answered 500: it went wr")


async def test_refused(remote: Remote) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        backend = remote(f"http://127.0.0.1:{unused.getsockname()[1]}")
        got, error = await outcome(backend, a_call())
    assert got == []
    assert type(error) is PeerUnreachable
    assert "cannot connect" in error.message


async def test_refused_again_and_again_leaves_nothing_to_the_collector(remote: Remote) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        backend = remote(f"http://127.0.0.1:{unused.getsockname()[1]}")
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                with suppress(PeerUnreachable):  # `pytest.raises` would itself keep the error
                    async for _event in backend.stream(a_call()):
                        pytest.fail("it answered")
            left = [each for each in gc.get_objects() if type(each) is aiohttp.ClientConnectorError]
        finally:
            gc.enable()
    assert left == []


async def test_a_server_that_speaks_first_is_no_peer(remote: Remote) -> None:
    async def greets(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(greets, "127.0.0.1", 0)
    try:
        _, error = await outcome(remote(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), a_call())
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
    assert type(error) is PeerFailed
    assert "220 mail.example" in error.message


async def test_a_name_that_does_not_exist(remote: Remote) -> None:
    _, error = await outcome(remote("http://no-such-host.invalid:1"), a_call())
    assert type(error) is PeerUnreachable


async def test_never_answers_and_the_deadline_passes(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays[CHAT] = raw(then=None)
    got, error = await outcome(remote(), a_call(deadline_s=0.3))
    assert got == []
    assert type(error) is DeadlineExceeded


async def test_the_deadline_passes_amid_the_answer(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays[CHAT] = raw(head(SSE), chunk(said("a")), then=None)
    got, error = await outcome(remote(), a_call(deadline_s=2))
    assert [type(event) for event in got] == [Started, Token]
    assert type(error) is DeadlineExceeded


async def test_a_deadline_that_has_passed_already(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    _, error = await outcome(remote(), a_call(deadline_s=-1))
    assert type(error) is DeadlineExceeded


async def test_the_deadline_passes_while_a_handshake_is_not_answered(
    scripted_peer: ScriptedPeer, remote: Remote
) -> None:
    backend = remote(scripted_peer.url.replace("http:", "https:"), connect_timeout=60)
    _, error = await outcome(backend, a_call(deadline_s=0.3))
    assert type(error) is DeadlineExceeded


async def test_the_deadline_of_one_call_is_not_that_of_the_next_on_its_connection(
    scripted_peer: ScriptedPeer, remote: Remote
) -> None:
    deadline_s, passed = 2.0, asyncio.Event()

    async def later(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head(SSE), chunk(said("a")))
        await passed.wait()
        await connection.send(chunk(END), chunk(b""))

    scripted_peer.plays[CHAT] = in_turn(streaming(said("a"), END), later)
    backend = remote()
    begun = time.monotonic()
    assert [type(event) async for event in backend.stream(a_call(deadline_s))] == [Started, Token, Finished]
    async with aclosing(cast("AsyncGenerator[Event, None]", backend.stream(a_call(deadline_s=600)))) as events:
        got = [await anext(events), await anext(events)]
        await until(lambda: time.monotonic() > begun + deadline_s + 0.2, "the first call's deadline has passed")
        passed.set()
        got += [event async for event in events]
    assert [type(event) for event in got] == [Started, Token, Finished]
    assert len(scripted_peer.connections) == 1


async def test_an_answer_that_is_there_whole_is_not_too_late(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    texts = [said("x" * 60_000) for _ in range(4)]
    scripted_peer.plays[CHAT] = streaming(*texts, END)
    call = a_call(deadline_s=2)
    async with aclosing(cast("AsyncGenerator[Event, None]", remote().stream(call))) as events:
        got = [await anext(events)]
        await until(lambda: time.monotonic() > cast("float", call.deadline) + 0.2, "the deadline has passed")
        got += [event async for event in events]
    assert sum(len(event.text) for event in got if isinstance(event, Token)) == 240_000
    assert isinstance(got[-1], Finished)


@pytest.mark.parametrize("interim", ["100 Continue", "103 Early Hints"])
async def test_silence_after_an_interim_answer_is_bounded(
    scripted_peer: ScriptedPeer, remote: Remote, interim: str
) -> None:
    scripted_peer.plays[CHAT] = raw(f"HTTP/1.1 {interim}\r\n\r\n".encode(), then=None)
    got, error = await asyncio.wait_for(outcome(remote(timeout=0.5), a_call()), WAIT_S)
    assert got == []
    assert "silent for 0.5 s" in error.message


async def test_silence_amid_the_answer_is_bounded(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays[CHAT] = raw(head(SSE), chunk(said("a")), then=None)
    got, error = await outcome(remote(timeout=0.5), a_call())
    assert [type(event) for event in got] == [Started, Token]
    assert type(error) is PeerFailed
    assert "silent for 0.5 s" in error.message


async def test_a_reload_changes_the_bound_on_connections_that_are_kept(
    scripted_peer: ScriptedPeer, remote: Remote
) -> None:
    scripted_peer.plays[CHAT] = streaming(said("a"), END)
    backend = remote(timeout=60)
    assert [type(event) async for event in backend.stream(a_call())] == [Started, Token, Finished]
    backend.adopt(RemoteConfig(id="m", type="remote", base_urls=(scripted_peer.url,), timeout=0.1, version="v9"))
    scripted_peer.plays[CHAT] = raw(head(SSE), chunk(said("a")), then=None)
    got, error = await outcome(backend, a_call())
    assert isinstance(got[0], Started)
    assert got[0].route.version == "v9"
    assert "silent for 0.1 s" in str(error)
    assert len({id(request.connection) for request in scripted_peer.calls(CHAT)}) == 1


async def test_a_port_that_echoes_gives_no_secret_away(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    """Nor the beginning of one that goes on behind what is quoted."""

    async def echo(connection: Connection, request: PeerRequest) -> None:
        await connection.send(f"{request.method} / HTTP/1.1\r\n{request.headers['authorization']}".encode())

    scripted_peer.plays[CHAT] = echo
    _, error = await outcome(remote(api_key="sk-" + "very-secret" * 30), a_call())
    assert type(error) is PeerFailed
    assert "secret" not in "".join(traceback.format_exception(error))


async def test_a_refusal_in_a_coding_that_is_not_readable_keeps_its_meaning(
    scripted_peer: ScriptedPeer, remote: Remote
) -> None:
    scripted_peer.plays[CHAT] = answering(b"x", "Content-Encoding: br", "Retry-After: 7", status="503 Busy")
    _, error = await outcome(remote(), a_call())
    assert type(error) is Unavailable
    assert error.retry_after_s == 7


async def test_secrets_that_the_peer_quotes_are_not_passed_on(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    told = b'{"error":{"message":"wrong key sk-very-secret, team blue-team"}}'
    options = {"api_key": "sk-very-secret", "headers": {"X-Team": "blue-team"}}
    scripted_peer.plays[CHAT] = answering(told, status="401 Unauthorized")
    _, error = await outcome(remote(**options), a_call())
    assert error.message.endswith("answered 401: wrong key ***, team ***")
    scripted_peer.plays[CHAT] = streaming(data(told))
    _, error = await outcome(remote(**options), a_call())
    assert error.message.endswith("amid its answer: wrong key ***, team ***")
    assert "secret" not in "".join(traceback.format_exception(error))
