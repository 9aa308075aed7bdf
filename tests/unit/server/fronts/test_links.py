"""A front and its home over one socket: calls, permits and questions, and what becomes of them when somebody leaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.config import LocalConfig
from polyroute.core.embedder import NoEmbedding
from polyroute.core.errors import Overloaded, PeerFailed, PolyrouteError, Unavailable, UnknownModel
from polyroute.core.event import Attempt, Event, Finished, Started, Token
from polyroute.core.request import Message, Request, Tool
from polyroute.core.trace import SAMPLED, Begin, Span, Trace, Value, untraced
from polyroute.routing.lending import Lending
from polyroute.routing.permits import Permits
from polyroute.server.fronts.failures import failed, raised
from polyroute.server.fronts.front_link import FrontLink, Rooms
from polyroute.server.fronts.home_link import HomeLink
from polyroute.server.fronts.link import Link
from polyroute.server.fronts.local_model import HomeEmbedder, LocalModel
from polyroute.server.fronts.messages.frames import to_front_decoder, to_home_decoder
from polyroute.server.fronts.operator import home_operator
from polyroute.server.fronts.standing import Standings
from polyroute.v1 import admin_pb2, models_pb2
from polyroute.v1.admin_pb2_grpc import AdminServiceServicer
from tests.integration.rest_serving import gateway_over

WAIT_S = 60.0


@dataclass(slots=True)
class Pair:
    """Both ends, over the model `m` that `echo` answers for, with 2 permits."""

    echo: EchoBackend
    home: HomeLink
    front: FrontLink
    standings: Standings
    model: LocalModel
    permits: Permits
    to_front: Link[object]  # type: ignore[type-var]


class Operator(AdminServiceServicer):
    """Unloads nothing but `m`."""

    async def UnloadModel(
        self, request: admin_pb2.UnloadModelRequest, context: object
    ) -> admin_pb2.UnloadModelResponse:
        if request.model != "m":
            raise UnknownModel(request.model)
        return admin_pb2.UnloadModelResponse(model=models_pb2.Model(id=request.model))


@asynccontextmanager
async def pair(echo: EchoBackend | None = None, begin: Begin = untraced) -> AsyncIterator[Pair]:
    echo = echo or EchoBackend("m")
    permits = Permits("m", 2, 1, 60)

    def find(name: str) -> Permits:
        if name != "m":
            raise UnknownModel(name)
        return permits

    async def embed(source: str, text: str) -> bytes:
        if not text:
            raise NoEmbedding("no words")
        return f"{source} {text}".encode()

    async def expose(accept: str, names: Sequence[str]) -> AsyncGenerator[bytes, None]:
        yield b"a" * 1000
        yield f"{accept} {list(names)}".encode()

    async with gateway_over(echo) as gateway:
        ours, theirs = socket.socketpair()
        to_front, to_home = await Link.over(ours, to_home_decoder), await Link.over(theirs, to_front_decoder)
        front = FrontLink(
            Rooms(gateway, Lending(find), begin, embed, expose, Operator()), to_front.send, to_front.drained
        )
        home = HomeLink(to_home.send)
        reading = [
            asyncio.create_task(to_front.run(front.receive)),
            asyncio.create_task(to_home.run(home.receive)),
        ]
        try:
            model = LocalModel(LocalConfig(id="m", type="local"), home)
            yield Pair(echo, home, front, Standings(gateway), model, permits, to_front)  # type: ignore[arg-type]
        finally:
            await front.end()
            to_front.close()
            to_home.close()
            await asyncio.gather(*reading)


def call(prompt: str = "one two", **fields: object) -> Call:
    return Call(Request(model="m", prompt=prompt, **fields), "id")  # type: ignore[arg-type]


async def until(condition: object) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def taken(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


async def test_an_answer_comes_through_as_it_is() -> None:
    async with pair() as both:
        asked = Call(
            Request(messages=(Message("user", "one two three"),), tools=(Tool("t", "d", {"type": "object"}),)), "id"
        )
        there = await taken(both.model.stream(asked))
        assert isinstance(there[0], Started)
        assert "".join(event.text for event in there if isinstance(event, Token)) == "one two three"
        assert isinstance(there[-1], Finished)
        (seen,) = both.echo.calls
        assert (seen.request.model, seen.request.messages, seen.request.tools) == (
            "m",
            asked.request.messages,
            asked.request.tools,
        )
        assert (seen.request_id, seen.deadline) == ("id", None)


async def test_what_another_configuration_answers_has_no_version() -> None:
    async with pair() as both:
        (deployment,) = both.front._rooms.gateway.snapshot.deployments.values()
        versions = []
        for fingerprint in (deployment.shelf.fingerprint, "of before the reload"):
            (started, *_) = await taken(both.home.run("m", fingerprint, call()))
            assert isinstance(started, Started)
            versions.append(started.route.version)
        assert versions[0]
        assert not versions[1]  # so that nobody keeps the answer under a key of the other


async def test_who_leaves_ends_the_work_in_the_home() -> None:
    echo = EchoBackend("m", script=Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=1))
    async with pair(echo) as both:
        async with aclosing(both.home.run("m", "", call())) as events:
            await anext(events)
            assert echo.open == 1
        await until(lambda: echo.open == 0)


async def test_a_slow_reader_holds_up_its_own_answer_alone() -> None:
    echo = EchoBackend("m", script=Script(texts=["a"] * 500))
    async with pair(echo) as both:
        async with aclosing(both.home.run("m", "", call())) as events:
            await anext(events)
            await taken(both.model.stream(call()))
            assert (echo.open, echo.completed) == (1, 1)
            rest = await taken(events)
        assert sum(isinstance(event, Token) for event in rest) == 500


async def test_an_error_is_raised_as_it_was() -> None:
    error = PeerFailed("badly", retry_after_s=2.0, metadata={"a": "b"}).after((Attempt("m", reason="X"),), "badly")
    error.quoted = "ad"
    async with pair(EchoBackend("m", script=Script(error=error))) as both:
        with pytest.raises(PeerFailed) as found:
            await taken(both.model.stream(call()))
        assert told(found.value) == told(error)
        both.echo.script = Script(error=ValueError("our bug"))
        with pytest.raises(PolyrouteError, match="request ID id") as hidden:
            await taken(both.model.stream(call()))
        assert "our bug" not in str(hidden.value)
        with pytest.raises(UnknownModel):
            await taken(both.home.run("gone", "", call()))


def told(error: PolyrouteError) -> dict[str, object]:
    """Everything that an error says."""
    return {"attempts": (), "quoted": "", "shared": False, **vars(error)}


def every_error(root: type[PolyrouteError] = PolyrouteError) -> list[type[PolyrouteError]]:
    return [root, *(kind for sub in root.__subclasses__() for kind in every_error(sub))]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_has_a_message(kind: type[PolyrouteError]) -> None:
    made = kind.__new__(kind, "words")
    PolyrouteError.__init__(made, "words", retry_after_s=1.0)
    vars(made).update(field="f", near=("a", "b"))
    again = raised(failed(1, made))
    assert type(again) is kind
    assert (told(again), str(again)) == (told(made), "words")


async def test_a_call_whose_spans_are_kept_has_one_in_the_home_too() -> None:
    kept: list[Span] = []

    def begin(parent: Trace, name: str, attributes: Callable[[], Mapping[str, Value]]) -> Trace:
        return parent.under(Span(name, "server", parent, kept.append, attributes()))

    async with pair(begin=begin) as both:
        await taken(both.model.stream(call()))
        assert not kept
        sampled = call().under(Trace("a" * 32, "b" * 16, SAMPLED))
        await taken(both.model.stream(sampled))
        both.echo.script = Script(error=PeerFailed("badly"))
        with pytest.raises(PeerFailed):
            await taken(both.model.stream(sampled))
        assert [(span.name, span.trace_id, span.parent_id, span.error) for span in kept] == [
            ("run m", "a" * 32, "b" * 16, None),
            ("run m", "a" * 32, "b" * 16, "PeerFailed"),
        ]


async def test_permits_are_the_homes() -> None:
    async with pair() as both:
        permits = both.home.permits_for(LocalConfig(id="m", type="local"), both.model.facts)
        first, second = await permits.acquire(), await permits.acquire()
        assert (both.permits.in_flight, permits.here) == (2, 2)
        waiting = asyncio.create_task(permits.acquire())
        await until(lambda: both.permits.queued == 1)
        with pytest.raises(Overloaded, match="1 waiting, limit 1"):
            await permits.acquire()
        waiting.cancel()
        await until(lambda: both.permits.queued == 0)
        first.release()
        second.release()
        await until(lambda: both.permits.in_flight == 0)


async def test_permits_that_a_reload_makes_anew_leave_none_behind() -> None:
    async with pair() as both:
        both.permits.limit(64, 1, 60)
        before = both.home.permits_for(LocalConfig(id="m", type="local"), both.model.facts)
        running = await before.acquire()
        assert before.spare > 0
        both.home.permits_for(LocalConfig(id="m", type="local"), both.model.facts)
        await until(lambda: both.permits.free == 63)
        running.release()
        await until(lambda: both.permits.free == 64)


async def test_what_is_spare_is_told_anew_after_it_was_called_back() -> None:
    async with pair() as both:
        both.permits.limit(64, 1, 60)
        permits = both.home.permits_for(LocalConfig(id="m", type="local"), both.model.facts)
        for _ in range(2):
            (await permits.acquire()).release()
            spare = permits.spare
            both.home.tell_busy()
            await until(lambda: both.permits.in_flight == 0)
            await both.front._rooms.lending.recall_all()
            assert (permits.spare, both.permits.in_flight) == (0, 0)
        assert spare > 0


async def test_permits_that_are_spare_again_after_others_went_back_are_not_taken_for_calls() -> None:
    async with pair() as both:
        both.permits.limit(14, 1, 60)
        permits = both.home.permits_for(LocalConfig(id="m", type="local"), both.model.facts)
        (await permits.acquire()).release()
        spare = permits.spare
        both.home.tell_busy()
        await until(lambda: both.permits.in_flight == 0)
        for permit in [await permits.acquire() for _ in range(spare + 2)]:
            permit.release()
        assert permits.spare == spare == 3
        await until(lambda: both.permits.free == 14 - spare)
        both.home.tell_busy()
        await until(lambda: both.permits.in_flight == 0)


async def test_the_end_of_a_front_frees_what_it_had() -> None:
    echo = EchoBackend("m", script=Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=1))
    async with pair(echo) as both:
        permits = both.home.permits_for(LocalConfig(id="m", type="local"), both.model.facts)
        await permits.acquire()
        running = asyncio.create_task(taken(both.model.stream(call())))
        await until(lambda: echo.open == 1)
        collecting = asyncio.create_task(both.front.collect())
        await asyncio.sleep(0)
        await both.front.end()
        assert (echo.open, both.permits.in_flight) == (0, 0)
        with pytest.raises(Unavailable):
            await collecting
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_end_of_the_home_ends_who_waits_for_it() -> None:
    echo = EchoBackend("m", script=Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=1))
    async with pair(echo) as both:
        permits = both.home.permits_for(LocalConfig(id="m", type="local"), both.model.facts)
        held = [await permits.acquire(), await permits.acquire()]
        waiting = [asyncio.create_task(permits.acquire()), asyncio.create_task(taken(both.model.stream(call())))]
        await until(lambda: echo.open == 1 and both.permits.queued == 1)
        both.home.lose()
        for task in waiting:
            with pytest.raises(Unavailable):
                await task  # type: ignore[misc]
        with pytest.raises(Unavailable):
            await permits.acquire()
        for permit in held:
            permit.release()


async def test_how_models_stand_is_told_when_it_changes() -> None:
    async with pair() as both:
        permits = both.home.permits_for(LocalConfig(id="m", type="local"), both.model.facts)
        assert both.model.facts().state is ModelState.LOADING
        first = both.standings.everything()
        assert first.deployments["m"].max_concurrency == 128  # those of the gateway
        both.home.receive(first)
        assert permits.max_concurrency == 128
        other = FrontLink(both.front._rooms, lambda message: None, asyncio.Event().wait)  # type: ignore[arg-type]
        both.standings.news([both.front, other])
        assert both.standings.news([both.front, other]) == []
        await permits.acquire()
        both.home.tell_busy()
        await until(lambda: both.front.here.get("m"))
        own, others = both.standings.news([both.front, other])
        assert (own.deployments["m"].elsewhere, others.deployments["m"].elsewhere) == (0, 1)


async def test_texts_become_vectors_in_the_home() -> None:
    async with pair() as both:
        embedder = HomeEmbedder("minilm", both.home)
        assert await embedder.embed("words") == b"minilm words"
        with pytest.raises(NoEmbedding, match="no words"):
            await embedder.embed("")


async def test_operators_calls_are_the_homes() -> None:
    async with pair() as both:
        operator = home_operator(both.home)
        unloaded = await operator.UnloadModel(admin_pb2.UnloadModelRequest(model="m"), None)
        assert unloaded.model.id == "m"
        with pytest.raises(UnknownModel):
            await operator.UnloadModel(admin_pb2.UnloadModelRequest(model="n"), None)


async def test_the_whole_of_metrics_comes_in_parts() -> None:
    async with pair() as both:
        assert (
            b"".join([part async for part in both.home.scrape("text/plain", ["x"])])
            == b"a" * 1000 + b"text/plain ['x']"
        )


async def test_tokens_are_counted_in_the_home() -> None:
    async with pair() as both:
        assert (await both.model.count_tokens(call("a b c"))).prompt_tokens == 3
