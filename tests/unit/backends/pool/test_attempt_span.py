"""Each attempt of a sampled call is a span, whose child is whoever answers there; those of other calls are none."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.errors import PeerFailed
from polyroute.core.event import Event, Route, Started
from polyroute.core.trace import SAMPLED, Span, Trace
from tests.unit.backends.pool.pools import CALL, World, answered, opened, replicas
from tests.unit.backends.pool.test_hedging import SOON, slow_and_fast


@pytest.fixture
def world() -> World:
    return World()


def sampled(spans: list[Span]) -> tuple[Call, Span]:
    trace = Trace("a" * 32, "", SAMPLED)
    root = Span("call", "server", trace, spans.append, {})
    return replace(CALL, trace=trace.under(root)), root


async def test_an_attempt_that_answers(world: World) -> None:
    spans: list[Span] = []
    call, root = sampled(spans)
    (backend,) = replicas(1)
    await answered(world.pool(backend), call)
    (span,) = spans
    assert (span.name, span.kind, span.parent_id) == ("text_completion m", "client", root.span_id)
    assert span.ended_ns
    assert span.error is None
    assert span.attributes["polyroute.replica"] == "r0"
    assert "polyroute.outcome" not in span.attributes
    given = backend.calls[0].trace
    assert (given.trace_id, given.span_id, given.span) == (root.trace_id, span.span_id, span)


async def test_one_that_fails_and_the_one_after_it(world: World) -> None:
    spans: list[Span] = []
    call, root = sampled(spans)
    error = PeerFailed("it said secret")
    error.quoted = "secret"
    pool = world.pool(EchoBackend("m", replica="r0", script=Script(error=error)), retries=1)
    with pytest.raises(PeerFailed):
        await answered(pool, call)
    assert [span.parent_id for span in spans] == [root.span_id] * 2
    assert [span.attributes["error.type"] for span in spans] == ["PEER_FAILED"] * 2
    assert {span.error for span in spans} == {"it said (6 characters that are not logged)"}


async def test_one_that_is_beaten_and_one_that_is_left(world: World) -> None:
    spans: list[Span] = []
    call, _ = sampled(spans)
    async with aclosing(opened(world.pool(*slow_and_fast(world), hedge=SOON), call)) as events:
        await anext(events)
        (beaten,) = spans
        assert (beaten.attributes["polyroute.outcome"], beaten.error) == ("CANCELLED", None)
    assert (spans[1].attributes["polyroute.outcome"], spans[1].error) == ("CANCELLED", None)


@pytest.mark.parametrize("after", [0, 1])
async def test_one_that_a_bug_of_ours_ends(world: World, after: int) -> None:
    class Buggy(EchoBackend):
        async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
            if after:
                yield Started(Route())
            raise KeyError("a secret")

    spans: list[Span] = []
    call, _ = sampled(spans)
    with pytest.raises(KeyError):
        await answered(world.pool(Buggy("m")), call)
    (span,) = spans
    assert (span.attributes["error.type"], span.error) == ("INTERNAL", "KeyError")
    assert "polyroute.outcome" not in span.attributes


async def test_one_that_is_left_at_the_deadline(world: World) -> None:
    spans: list[Span] = []
    call, _ = sampled(spans)
    deadline = time.monotonic() + 3600
    async with aclosing(opened(world.pool(*replicas(1)), replace(call, deadline=deadline))) as events:
        await anext(events)
        world.now = deadline
    (span,) = spans
    assert (span.attributes["error.type"], span.error) == ("DEADLINE_EXCEEDED", "the caller's deadline passed")


async def test_a_call_that_is_not_sampled_goes_on_as_it_is(world: World) -> None:
    trace = Trace("a" * 32, "b" * 16, 0)
    (backend,) = replicas(1)
    await answered(world.pool(backend), replace(CALL, trace=trace))
    assert backend.calls[0].trace is trace
