"""Calls to a peer that behaves: what it is sent, how its answer comes, and what it sees when the caller leaves."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast

import orjson
import pytest
from aiohttp import ClientTimeout
from yarl import URL

from polyroute.backends.remote.backend import RemoteBackend
from polyroute.backends.remote.connection import Connections
from polyroute.core.call import Call
from polyroute.core.errors import (
    Draining,
    InvalidArgument,
    PeerFailed,
    PeerUnreachable,
    Unimplemented,
    Unsupported,
)
from polyroute.core.event import CacheResult, Event, Finished, FinishReason, Route, Started, Token, Usage
from polyroute.core.request import Message, Request
from polyroute.core.route_header import ROUTE_HEADER, route_to_header
from polyroute.core.trace import parse
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
CALL = Call(REQUEST, "r1")
GZIP = "Content-Encoding: gzip"
PROMPT = Call(Request(model="m", prompt="hi"), "r1")


def opened(backend: RemoteBackend, call: Call = CALL) -> AsyncGenerator[Event, None]:
    return cast("AsyncGenerator[Event, None]", backend.stream(call))


async def events_of(backend: RemoteBackend, call: Call = CALL) -> list[Event]:
    async with aclosing(opened(backend, call)) as events:
        return [event async for event in events]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def sent(events: list[Event]) -> list[Event | str]:
    """The events, with texts as they were sent, whichever of them came at once."""
    apart: list[Event | str] = []
    for event in events:
        apart += (event.pieces or (event.text,)) if isinstance(event, Token) else (event,)
    return apart


def route_of(events: list[Event]) -> Route:
    assert isinstance(events[0], Started)
    return events[0].route


async def test_a_streamed_answer(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    role = data({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    scripted_peer.plays[CHAT] = streaming(b": hello\n\n", role, said("a "), said("b"), END)
    backend = remote(version="3")
    assert sent(await events_of(backend)) == [
        Started(Route(model="m", version="3", replica=scripted_peer.url)),
        "a ",
        "b",
        Finished(FinishReason.STOP, Usage(3, 2)),
    ]
    assert scripted_peer.requests[-1].json == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_many_events_in_one_read_and_one_event_in_many_reads(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    body = said("a") + said("é 🎉") + END

    async def dribble(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head(SSE, length=len(body)))
        for place in range(len(body)):
            await connection.send(body[place : place + 1])

    scripted_peer.plays[CHAT] = in_turn(streaming(body), dribble)
    backend = remote()
    at_once, dribbled = await events_of(backend), await events_of(backend)
    assert sent(at_once) == sent(dribbled)
    assert [event for event in at_once if isinstance(event, Token)] == [Token("aé 🎉")], (
        "what came at once is one token"
    )
    assert [event for event in dribbled if isinstance(event, Token)] == [Token("a"), Token("é 🎉")]


async def test_thousands_of_events_in_one_read_that_are_unlike_each_other(
    scripted_peer: ScriptedPeer, remote: Remote
) -> None:
    texts = [str(number) for number in range(2000)]
    events = b"".join(data({"choices": [{"text": text}], "id": number // 2}) for number, text in enumerate(texts))
    scripted_peer.plays[CHAT] = streaming(events + END)
    assert sent(await events_of(remote()))[-1] == Finished(FinishReason.STOP, Usage(3, 2))
    assert text_of(await events_of(remote())) == "".join(texts)


async def test_a_token_tells_whether_the_end_has_come_with_it(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    body = said("a") + said("b") + END

    async def at_once(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head(SSE, length=len(body)), body)

    scripted_peer.plays[CHAT] = in_turn(at_once, streaming(said("a"), said("b"), END))
    backend = remote()
    for last in (True, False):
        tokens = [event for event in await events_of(backend) if isinstance(event, Token)]
        assert tokens[-1].last is last


async def test_a_token_is_passed_on_before_the_next_one_exists(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    more = asyncio.Event()

    async def play(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head(SSE), chunk(said("a")))
        await more.wait()
        await connection.send(chunk(said("b")), chunk(END), chunk(b""))

    scripted_peer.plays[CHAT] = play
    async with aclosing(opened(remote())) as events, asyncio.timeout(WAIT_S):
        assert isinstance(await anext(events), Started)
        assert await anext(events) == Token("a")
        more.set()
        assert await anext(events) == Token("b")


async def test_nothing_has_begun_until_there_is_content(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    """A role alone is no answer: another attempt must still be possible."""
    role = data({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    reached = asyncio.Event()

    async def play(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head(SSE), chunk(role))
        reached.set()

    scripted_peer.plays[CHAT] = play
    events = opened(remote())
    first = asyncio.ensure_future(anext(events))
    await reached.wait()
    await asyncio.wait({first}, timeout=0.1)
    assert not first.done()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await events.aclose()


async def test_an_answer_without_text_begins_and_ends(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays[CHAT] = streaming(END)
    assert [type(event) for event in await events_of(remote())] == [Started, Finished]


async def test_a_peer_that_does_not_stream(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "a b"}, "finish_reason": "length"}]}
    scripted_peer.plays[CHAT] = answering(orjson.dumps(whole))
    events = await events_of(remote())
    assert text_of(events) == "a b"
    assert events[-1] == Finished(FinishReason.LENGTH)


async def test_an_answer_that_ends_with_its_connection(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    async def old(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", said("a"), END)
        connection.close()

    scripted_peer.plays[CHAT] = old
    backend = remote()
    for _ in range(2):
        assert sent(await events_of(backend))[1:] == ["a", Finished(FinishReason.STOP, Usage(3, 2))]
    assert len(scripted_peer.connections) == 2


async def test_an_answer_that_comes_compressed_all_the_same(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    body = gzip.compress(said("a " * 1000) + said("b") + END)
    scripted_peer.plays[CHAT] = streaming(*(body[i : i + 9] for i in range(0, len(body), 9)), headers=(GZIP,))
    backend = remote()
    for _ in range(2):
        assert text_of(await events_of(backend)) == "a " * 1000 + "b"
    assert len(scripted_peer.connections) == 1


async def test_what_comes_behind_an_answer_answers_no_other_call(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    async def twice(connection: Connection, _request: PeerRequest) -> None:
        parts = (head(SSE), chunk(said("a") + END), chunk(b""))
        await connection.send(*parts, *parts)

    scripted_peer.plays[CHAT] = twice
    backend = remote()
    for _ in range(2):
        assert text_of(await events_of(backend)) == "a"
    assert len(scripted_peer.connections) == 2


async def test_a_plain_prompt(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    part = data({"choices": [{"index": 0, "text": "a", "finish_reason": "stop", "stop_reason": "."}]})
    scripted_peer.plays["/v1/completions"] = streaming(part, data(b"[DONE]"))
    events = await events_of(remote(peer_model="theirs"), PROMPT)
    assert text_of(events) == "a"
    assert events[-1] == Finished(FinishReason.STOP_SEQUENCE, matched_stop=".")
    assert scripted_peer.requests[-1].json["model"] == "theirs"


async def test_the_legacy_dialect(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays["/v1/generate"] = answering(b'{"model":"m","output":"hello","cached":false}')
    backend = remote(api="generate")
    events = await events_of(backend, PROMPT)
    assert text_of(events) == "hello"
    assert scripted_peer.requests[-1].json == {"prompt": "hi", "model": "m"}
    assert not backend.status().chat
    with pytest.raises(Unsupported, match="messages"):
        await events_of(backend)


async def test_headers(scripted_peer: ScriptedPeer, remote: Remote, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("one")
    scripted_peer.plays[CHAT] = streaming(END)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    backend = remote(api_key={"file": key}, headers={"X-Team": "blue"})
    await events_of(backend, Call(REQUEST, "the-id", deadline=time.monotonic() + 500, trace=parse(parent, "a=b")))
    headers = scripted_peer.requests[-1].headers
    assert headers["authorization"] == "Bearer one"
    assert headers["x-team"] == "blue"
    assert headers["x-request-id"] == "the-id"
    assert (headers["traceparent"], headers["tracestate"]) == (parent, "a=b")
    assert 0 < int(headers["x-polyroute-timeout-ms"]) <= 500_000
    assert headers["accept-encoding"] == "identity"
    await events_of(backend)
    headers = scripted_peer.requests[-1].headers
    assert "x-polyroute-timeout-ms" not in headers


async def test_the_environments_proxy_is_not_used(
    scripted_peer: ScriptedPeer, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    scripted_peer.plays[CHAT] = streaming(END)
    await events_of(remote())


async def test_the_route_of_a_polyroute_peer(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    theirs = Route(model="theirs", version="7", cache=CacheResult.HIT, reasons=("because",), upstream=Route(model="x"))
    scripted_peer.plays[CHAT] = streaming(END, headers=(f"{ROUTE_HEADER}: {route_to_header(theirs)}",))
    assert route_of(await events_of(remote())).upstream == theirs


@pytest.mark.parametrize("header", ["", "nonsense", "[]", '{"model":5}', '{"upstream":' * 50 + "{}" + "}" * 50])
async def test_a_malformed_route_is_ignored(scripted_peer: ScriptedPeer, remote: Remote, header: str) -> None:
    scripted_peer.plays[CHAT] = streaming(END, headers=(f"{ROUTE_HEADER}: {header}",))
    assert route_of(await events_of(remote())).upstream is None


async def silent(_connection: Connection, _request: PeerRequest) -> None:
    """Has nothing more to say."""


def first_part(*parts: bytes) -> Play:
    async def play(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(*parts)

    return play


@pytest.mark.parametrize("play", [silent, first_part(head(SSE)), first_part(head(SSE), chunk(b": wait\n\n"))])
async def test_a_caller_that_leaves_before_the_answer_closes_the_peers_socket(
    scripted_peer: ScriptedPeer, remote: Remote, play: Play
) -> None:
    scripted_peer.plays[CHAT] = play
    backend = remote()
    task = asyncio.create_task(events_of(backend))
    await asyncio.wait_for(scripted_peer.arrived.wait(), WAIT_S)
    assert backend.status().replicas[0].in_flight == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(scripted_peer.connections[-1].gone.wait(), WAIT_S)
    assert task.cancelled()
    assert backend.status().replicas[0].in_flight == 0


async def test_a_caller_that_leaves_amid_the_answer_closes_the_peers_socket(
    scripted_peer: ScriptedPeer, remote: Remote
) -> None:
    scripted_peer.plays[CHAT] = first_part(head(SSE), chunk(said("a")))
    async with aclosing(opened(remote())) as events:
        await anext(events)
    await asyncio.wait_for(scripted_peer.connections[-1].gone.wait(), WAIT_S)


async def test_a_caller_that_does_not_read_holds_the_peer_back(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    """What nobody reads waits at the peer: it is not piled up here."""
    held_back = asyncio.Event()

    async def flood(connection: Connection, _request: PeerRequest) -> None:
        assert connection.transport is not None
        await connection.send(head(SSE))
        while connection.transport.get_write_buffer_size() < 2**20:
            await connection.send(chunk(said("x" * 1000)))
        held_back.set()

    scripted_peer.plays[CHAT] = flood
    async with aclosing(opened(remote())) as events:
        await anext(events)
        await asyncio.wait_for(held_back.wait(), WAIT_S)
    await asyncio.wait_for(scripted_peer.connections[-1].gone.wait(), WAIT_S)


async def test_a_connection_is_kept_for_the_next_call(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays[CHAT] = streaming(said("a"), END)
    backend = remote()
    for _ in range(3):
        await events_of(backend)
    assert len(scripted_peer.connections) == 1


async def test_an_answer_that_is_closed_twice_leaves_the_next_on_its_connection_alone(
    scripted_peer: ScriptedPeer,
) -> None:
    more = asyncio.Event()

    async def slowly(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head(SSE), chunk(b"a"))
        await more.wait()
        await connection.send(chunk(b"b"), chunk(b""))

    scripted_peer.plays["/"] = in_turn(answering(b""), slowly)
    connections = Connections(URL(scripted_peer.url), address=None, tls=False, keep=True, late=TimeoutError)
    first = await connections.send(b"GET / HTTP/1.1\r\n\r\n", ClientTimeout(), None)
    first.close()
    second = await connections.send(b"GET / HTTP/1.1\r\n\r\n", ClientTimeout(), None)
    first.close()
    more.set()
    body = b""
    while piece := await second.read():
        body += piece
    assert (body, len(scripted_peer.connections)) == (b"ab", 1)
    second.close()
    await connections.close()


async def test_a_connection_is_kept_after_a_refusal(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    refusal = answering(b"no", status="500 Internal Server Error", kind="text/plain")
    scripted_peer.plays[CHAT] = in_turn(refusal, streaming(said("a"), END))
    backend = remote()
    with pytest.raises(PeerFailed):
        await events_of(backend)
    assert text_of(await events_of(backend)) == "a"
    assert len(scripted_peer.connections) == 1


async def test_a_connection_that_the_peer_wants_closed_is_not_kept(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    whole = b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'
    scripted_peer.plays[CHAT] = answering(whole, "Connection: close")
    backend = remote()
    for _ in range(2):
        assert text_of(await events_of(backend)) == "a"
    assert len(scripted_peer.connections) == 2


async def test_what_comes_unasked_on_a_kept_connection_answers_no_call(
    scripted_peer: ScriptedPeer, remote: Remote
) -> None:
    answered, unasked = asyncio.Event(), said("unasked") + END

    async def says_more(connection: Connection, request: PeerRequest) -> None:
        await streaming(said("a"), END)(connection, request)
        await answered.wait()
        await connection.send(head(SSE, length=len(unasked)), unasked)

    scripted_peer.plays[CHAT] = in_turn(says_more, streaming(said("b"), END))
    backend = remote()
    assert text_of(await events_of(backend)) == "a"
    answered.set()
    assert text_of(await events_of(remote())) == "b", "and by now the other connection has brought what it brings"
    assert text_of(await events_of(backend)) == "b"


async def test_calls_at_the_same_time_have_a_connection_each(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    calls, all_there = 20, asyncio.Event()

    async def together(connection: Connection, request: PeerRequest) -> None:
        if len(scripted_peer.calls(CHAT)) == calls:
            all_there.set()
        await all_there.wait()
        await streaming(said(request.headers["x-request-id"]), END)(connection, request)

    scripted_peer.plays[CHAT] = together
    backend = remote()
    answers = await asyncio.gather(*(events_of(backend, Call(REQUEST, f"r{i}")) for i in range(calls)))
    assert [text_of(events) for events in answers] == [f"r{i}" for i in range(calls)]
    assert len(scripted_peer.connections) == calls


@pytest.mark.parametrize("interim", ["100 Continue", "103 Early Hints"])
async def test_an_interim_answer_is_not_the_answer(scripted_peer: ScriptedPeer, remote: Remote, interim: str) -> None:
    scripted_peer.plays[CHAT] = first_part(
        f"HTTP/1.1 {interim}\r\n\r\n".encode(), head(SSE), chunk(said("a") + END), chunk(b"")
    )
    assert text_of(await events_of(remote())) == "a"


async def test_a_long_request_arrives_whole(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays[CHAT] = streaming(said("a"), END)
    prompt = "long " * 400_000
    call = Call(Request(model="m", messages=(Message("user", prompt),)), "r1")
    assert text_of(await events_of(remote(), call)) == "a"
    assert scripted_peer.requests[-1].json["messages"][0]["content"] == prompt


@asynccontextmanager
async def unreading(answer: bytes = b"") -> AsyncIterator[tuple[str, list[asyncio.StreamReader]]]:
    """The URL of a peer that reads the heads of requests, gives `answer`, and leaves their bodies where they are."""
    requests: list[asyncio.StreamReader] = []

    async def left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        requests.append(reader)
        writer.write(answer)
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(left, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


LONG = Call(Request(model="m", messages=(Message("user", "x" * 2**24),)), "r1")  # more than two sockets hold


async def test_a_connection_on_which_a_request_was_refused_unread_is_not_kept(remote: Remote) -> None:
    """The next call would wait there behind the rest of that request."""
    async with unreading(head("text/plain", status="413 Content Too Large", length=2) + b"no") as (url, requests):
        backend = remote(url)
        for call in (LONG, CALL):
            with pytest.raises(InvalidArgument):
                await asyncio.wait_for(events_of(backend, call), WAIT_S)
        assert len(requests) == 2


async def test_a_caller_that_leaves_amid_its_request_does_not_send_the_rest(remote: Remote) -> None:
    async with unreading() as (url, requests):
        task = asyncio.create_task(events_of(remote(url), LONG))
        await until(lambda: bool(requests), "the request has begun to arrive")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(requests[0].readexactly(2**24), WAIT_S)


async def test_stopping_does_not_wait_for_a_peer_that_does_not_read(remote: Remote) -> None:
    async with unreading() as (url, requests):
        backend = remote(url)
        task = asyncio.create_task(events_of(backend, LONG))
        await until(lambda: bool(requests), "the request has begun to arrive")
        await asyncio.wait_for(backend.stop(), WAIT_S)
        with pytest.raises(Draining):
            await task


async def test_a_peer_that_never_ends_its_body_after_done_does_not_hold_the_end_up(
    scripted_peer: ScriptedPeer, remote: Remote
) -> None:
    scripted_peer.plays[CHAT] = first_part(head(SSE), chunk(said("a") + END))
    assert text_of(await events_of(remote())) == "a"
    await asyncio.wait_for(scripted_peer.connections[-1].gone.wait(), WAIT_S)


@pytest.mark.parametrize("ending", [Connection.close, Connection.reset])
async def test_a_kept_connection_that_the_peer_closes_is_no_failure(
    scripted_peer: ScriptedPeer, remote: Remote, ending: Callable[[Connection], None]
) -> None:
    """The call crosses the peer's closing of an idle connection: it goes out again on a fresh one."""

    async def closing(connection: Connection, _request: PeerRequest) -> None:
        ending(connection)

    scripted_peer.plays[CHAT] = in_turn(streaming(said("a"), END), closing, streaming(said("b"), END))
    backend = remote()
    assert text_of(await events_of(backend)) == "a"
    assert text_of(await events_of(backend)) == "b"
    assert len(scripted_peer.connections) == 2


async def test_it_goes_out_again_once_and_no_more(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    async def closing(connection: Connection, _request: PeerRequest) -> None:
        connection.close()

    scripted_peer.plays[CHAT] = in_turn(streaming(said("a"), END), closing)
    backend = remote()
    await events_of(backend)
    with pytest.raises(PeerUnreachable):
        await events_of(backend)
    assert len(scripted_peer.calls(CHAT)) == 3


async def test_what_the_peer_had_begun_to_answer_is_not_sent_again(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    async def half(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-")
        connection.close()

    scripted_peer.plays[CHAT] = in_turn(streaming(said("a"), END), half)
    backend = remote()
    await events_of(backend)
    with pytest.raises(PeerUnreachable):
        await events_of(backend)
    assert len(scripted_peer.calls(CHAT)) == 2


@pytest.mark.parametrize("ends_with_its_connection", [False, True])
async def test_stopping_ends_calls_in_flight(
    scripted_peer: ScriptedPeer, remote: Remote, *, ends_with_its_connection: bool
) -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + said("a")
    scripted_peer.plays[CHAT] = (
        first_part(endless) if ends_with_its_connection else first_part(head(SSE), chunk(said("a")))
    )
    backend = remote()
    async with aclosing(opened(backend)) as events:
        await anext(events)
        await anext(events)
        await backend.stop()
        with pytest.raises(Draining):
            await anext(events)
    with pytest.raises(Draining):
        await events_of(backend)


async def test_counting_tokens(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    backend = remote()
    with pytest.raises(Unimplemented):
        await backend.count_tokens(PROMPT)
    scripted_peer.plays["/tokenize"] = answering(b'{"count":5,"max_model_len":99,"tokens":[1,2,3,4,5]}')
    counted = await backend.count_tokens(CALL)
    assert (counted.prompt_tokens, counted.context_length) == (5, 99)
    assert scripted_peer.requests[-1].json == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    "told", [b"{}", b'{"count":null}', b'{"count":-1}', b'{"count":1e308}', b'{"count":true}', b"[]"]
)
async def test_a_count_that_is_none(scripted_peer: ScriptedPeer, remote: Remote, told: bytes) -> None:
    scripted_peer.plays["/tokenize"] = answering(told)
    with pytest.raises(PeerFailed, match="its count "):
        await remote().count_tokens(CALL)


async def test_a_base_url_may_end_in_v1(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays[CHAT] = streaming(END)
    await events_of(remote(f"{scripted_peer.url}/v1"))
