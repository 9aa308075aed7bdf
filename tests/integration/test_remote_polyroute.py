"""Another Polyroute as the peer, through both dialects: answers, routes, errors and leaving, over a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import pytest
from msgspec.structs import replace

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.remote.backend import RemoteBackend
from polyroute.core.call import Call
from polyroute.core.config import RouteConfig
from polyroute.core.errors import DeadlineExceeded, Overloaded, PeerFailed, PolyrouteError, Unavailable, Unsupported
from polyroute.core.event import Event, Finished, FinishReason, Started, Token, Usage
from polyroute.core.request import CacheMode, CacheOptions, Message, Request, ResponseFormat, Sampling, Tool, ToolCall
from polyroute.core.trace import parse
from tests.integration.conftest import Remote
from tests.integration.rest_serving import rest_over, until

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = parse(f"00-{TRACE}-b7ad6b7169203331-01")
PROMPT = Request(model="ours", prompt="one two three")
CHAT = Request(model="ours", messages=(Message("user", "one two three"),))


async def events_of(backend: RemoteBackend, request: Request, **call: Any) -> list[Event]:
    async with aclosing(cast("AsyncGenerator[Event, None]", backend.stream(Call(request, "r1", **call)))) as events:
        return [event async for event in events]


@pytest.mark.parametrize(("api", "request_"), [("auto", CHAT), ("openai", PROMPT), ("generate", PROMPT)])
async def test_an_answer_crosses(remote: Remote, api: str, request_: Request) -> None:
    theirs = EchoBackend("theirs", version="9", context_length=77)
    async with rest_over(theirs) as peer:
        backend = remote(peer.url, api=api, peer_model="theirs")
        await backend.load()
        assert (backend.status().version, backend.status().context_length) == ("9", 77)
        first, *tokens, last = await events_of(backend, request_, trace=PARENT)
        assert isinstance(first, Started)
        assert (first.route.model, first.route.version, first.route.replica) == ("m", "9", peer.url)
        upstream = first.route.upstream
        assert upstream is not None
        assert (upstream.model, upstream.version, upstream.replica) == ("theirs", "9", "echo")
        texts = [text for token in tokens if isinstance(token, Token) for text in token.pieces or (token.text,)]
        assert texts == (["one two three"] if api == "generate" else ["one ", "two ", "three"])
        assert last == Finished(FinishReason.STOP, Usage(3, 3))
        assert theirs.calls[0].request_id == "r1"
        assert theirs.calls[0].trace == PARENT


@pytest.mark.parametrize("api", ["openai", "generate"])
async def test_how_it_ended_crosses(remote: Remote, api: str) -> None:
    script = Script(texts=("a",), reason=FinishReason.STOP_SEQUENCE, matched_stop="END", usage=Usage(5, 1, 4))
    async with rest_over(EchoBackend("m", script=script)) as peer:
        events = await events_of(remote(peer.url, api=api), Request(prompt="x", stop=("END",)))
        assert events[-1] == Finished(FinishReason.STOP_SEQUENCE, Usage(5, 1, 4), matched_stop="END")
        events = await events_of(remote(peer.url, api=api), Request(prompt="x", sampling=Sampling(max_tokens=3)))
        assert isinstance(events[0], Started)


@pytest.mark.parametrize("api", ["openai", "generate"])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (Unavailable("not now", retry_after_s=7), Unavailable),
        (Overloaded("too many", retry_after_s=7), Overloaded),
        (Unsupported("prompt", "no"), Unsupported),
        (PeerFailed("behind it"), PeerFailed),
        (RuntimeError("a bug"), PeerFailed),
    ],
)
async def test_an_error_before_the_answer_crosses(
    remote: Remote, api: str, theirs: Exception, ours: type[PolyrouteError]
) -> None:
    async with rest_over(EchoBackend("m", script=Script(error=theirs))) as peer:
        with pytest.raises(ours) as raised:
            await events_of(remote(peer.url, api=api), PROMPT)
        assert raised.value.try_next
        assert raised.value.retry_after_s == getattr(theirs, "retry_after_s", None)


async def test_an_error_amid_the_answer_crosses(remote: Remote) -> None:
    script = Script(texts=("a", "b"), error=Unavailable("it died"), error_after=1)
    async with rest_over(EchoBackend("m", script=script)) as peer:
        got: list[Event] = []
        with pytest.raises(PeerFailed, match="it died"):  # noqa: PT012
            async for event in remote(peer.url).stream(Call(CHAT, "r1")):
                got.append(event)  # noqa: PERF401
        assert got[1:] == [Token("a")]


async def test_the_deadline_is_kept_by_both(remote: Remote) -> None:
    theirs = EchoBackend("m", script=Script(gate=asyncio.Event()))
    async with rest_over(theirs) as peer:
        with pytest.raises(DeadlineExceeded):
            await events_of(remote(peer.url), CHAT, deadline=time.monotonic() + 1)
        await until(lambda: theirs.open == 0)
        assert theirs.calls[0].deadline is not None


@pytest.mark.parametrize(("api", "request_"), [("openai", CHAT), ("generate", PROMPT)])
async def test_a_caller_that_leaves_ends_the_work_behind_the_peer(remote: Remote, api: str, request_: Request) -> None:
    theirs = EchoBackend("m", script=Script(gate=asyncio.Event(), gate_after=1))
    async with rest_over(theirs) as peer:
        task = asyncio.create_task(events_of(remote(peer.url, api=api), request_))
        await until(lambda: theirs.open == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: theirs.open == 0)
        assert theirs.closed_early == 1


SAMPLING = Sampling(
    max_tokens=9,
    temperature=0.5,
    top_p=0.9,
    top_k=5,
    min_p=0.1,
    repetition_penalty=1.1,
    presence_penalty=0.2,
    frequency_penalty=0.3,
    seed=4,
    logprobs=2,
)
COMMON: dict[str, Any] = {"sampling": SAMPLING, "stop": ("a", "b"), "extra": {"logit_bias": {"5": 1.0}}}
EVERYTHING = {
    "chat": Request(
        messages=(
            Message("system", "s"),
            Message("user", "u"),
            Message("assistant", "", (ToolCall("c1", "find", "{}"),)),
            Message("tool", "found", (), "c1"),
        ),
        tools=(Tool("find", "Finds.", {"type": "object"}),),
        tool_choice="find",
        response_format=ResponseFormat("json_schema", '{"type":"object"}'),
        **COMMON,
    ),
    "chat with choices": Request(messages=CHAT.messages, response_format=ResponseFormat("choice", ("a", "b"))),
    "completion": Request(prompt="x", response_format=ResponseFormat("json_schema", '{"type":"object"}'), **COMMON),
    "completion with an expression": Request(prompt="x", response_format=ResponseFormat("regex", "a+")),
}


@pytest.mark.parametrize("name", EVERYTHING)
async def test_every_field_arrives_as_it_was_meant(remote: Remote, name: str) -> None:
    theirs = EchoBackend("m")
    async with rest_over(theirs) as peer:
        await events_of(remote(peer.url), EVERYTHING[name])
    arrived = theirs.calls[0].request
    assert replace(arrived, model="", request_id="") == EVERYTHING[name]


@pytest.mark.parametrize("mode", [CacheMode.BYPASS, CacheMode.REFRESH])
async def test_what_is_asked_of_the_cache_holds_for_the_peers_cache_too(remote: Remote, mode: CacheMode) -> None:
    theirs = EchoBackend("m")
    asked = CacheOptions(mode, max_age_s=1.5)
    async with rest_over(theirs) as peer:
        await events_of(remote(peer.url), Request(prompt="x", cache=asked))
    assert theirs.calls[0].request.cache == asked


async def test_an_answer_has_the_version_that_gave_it(remote: Remote) -> None:
    """The peer was restarted with other weights, and has not been asked since; it is asked now."""
    theirs = EchoBackend("theirs", version="9")
    async with rest_over(theirs) as peer:
        backend = remote(peer.url, peer_model="theirs", probe_interval=3600)
        await backend.start()
        await until(lambda: backend.facts().version == "9")
        theirs.version = "10"
        first, *_ = await events_of(backend, CHAT)
        assert isinstance(first, Started)
        assert first.route.version == "10"
        await until(lambda: backend.facts().version == "10")


async def test_a_version_that_the_peer_does_not_know_is_not_known_here(remote: Remote) -> None:
    theirs = EchoBackend("theirs", version="")
    async with rest_over(theirs) as peer:
        backend = remote(peer.url, peer_model="theirs")
        await backend.load()
        assert backend.facts().version == ""
        first, *_ = await events_of(backend, CHAT)
        assert isinstance(first, Started)
        assert first.route.version == ""


async def test_another_models_answer_has_no_version_of_the_one_that_was_asked_for(remote: Remote) -> None:
    theirs = EchoBackend("theirs", version="9", script=Script(error=Unavailable("not now")))
    other = EchoBackend("other", version="9")
    chat = RouteConfig(id="chat", model="theirs", fallback=("other",))
    async with rest_over(theirs, other, routes=(chat,)) as peer:
        backend = remote(peer.url, peer_model="chat")
        first, *_ = await events_of(backend, CHAT)
        assert isinstance(first, Started)
        assert first.route.version == "other@9"
