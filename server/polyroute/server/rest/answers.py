"""Runs a call for an HTTP request: whole, or up to its first event."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from polyroute.core.call import Call
from polyroute.core.event import Event, Finished, Route, Started, Token, TokenLogprob
from polyroute.core.request import ToolCall
from polyroute.routing.gateway import Gateway
from polyroute.routing.streams import generator
from polyroute.server.wire.answer import merge_tool_calls


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer; `created` is Unix time in seconds."""

    route: Route
    text: str
    tool_calls: tuple[ToolCall, ...]
    logprobs: tuple[TokenLogprob, ...]
    end: Finished
    created: int


class BrokenStream(Exception):
    """A service ended its stream without `Started` or `Finished`: our bug."""


@asynccontextmanager
async def begun(gateway: Gateway, call: Call) -> AsyncIterator[tuple[Route, AsyncGenerator[Event, None]]]:
    """The route and the events after it, once the answer has begun; closed with the block."""
    async with aclosing(generator(gateway.generate(call))) as events:
        first = await anext(events, None)
        if not isinstance(first, Started):
            raise BrokenStream(f"began with {type(first).__name__}")
        yield first.route, events


async def answered(gateway: Gateway, call: Call) -> Answer:
    """The whole answer of a call."""
    texts: list[str] = []
    tool_calls: dict[int, ToolCall] = {}
    logprobs: list[TokenLogprob] = []
    async with begun(gateway, call) as (route, events):
        created = int(time.time())
        async for event in events:
            if isinstance(event, Finished):
                called = tuple(tool_calls[i] for i in sorted(tool_calls))
                return Answer(route, "".join(texts), called, tuple(logprobs), event, created)
            if isinstance(event, Token):
                texts.append(event.text)
                logprobs.extend(event.logprobs)
                merge_tool_calls(tool_calls, event.tool_calls)
    raise BrokenStream("ended without Finished")
