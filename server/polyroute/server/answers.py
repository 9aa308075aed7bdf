"""The whole answer of a call, for the faces that give it in one piece."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from operator import attrgetter
from typing import Final

import msgspec

from polyroute.core.call import Call
from polyroute.core.event import Event, Finished, Route, Started, Token, TokenLogprob, Whole
from polyroute.core.request import ToolCall
from polyroute.routing.gateway import Gateway
from polyroute.routing.streams import generator

_text: Final = attrgetter("text")
_calls: Final = attrgetter("tool_calls")
_logprobs: Final = attrgetter("logprobs")


class BrokenStream(Exception):
    """A service ended its stream without `Started` or `Finished`: our bug."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One whole answer; `created` is Unix time in seconds."""

    route: Route
    text: str
    tool_calls: tuple[ToolCall, ...]
    logprobs: tuple[TokenLogprob, ...]
    end: Finished
    created: float


async def answer_to(call: Call, gateway: Gateway) -> Answer:
    """The answer to a call: the stored one where it is at hand, else what is generated for it."""
    whole = gateway.at_hand(call)
    if whole is None:
        return await answered(gateway.generate(call))
    return whole_answer(whole)


def whole_answer(whole: Whole) -> Answer:
    """The answer that a whole one makes."""
    return _made(whole.started.route, whole.tokens, whole.finished, time.time())


async def answered(events: AsyncIterator[Event]) -> Answer:
    """The answer that a stream of events makes; the stream is closed however this ends."""
    started: Started | None = None
    finished: Finished | None = None
    tokens: list[Token] = []
    created = 0.0
    async with aclosing(generator(events)) as stream:
        async for event in stream:  # to its end: who does not come back for more has left early
            if isinstance(event, Token):
                tokens.append(event)
            elif isinstance(event, Started):
                started, created = event, time.time()
            elif isinstance(event, Finished):
                finished = event
            else:
                started, finished, created = event.started, event.finished, time.time()
                tokens.extend(event.tokens)
    if started is None or finished is None:
        raise BrokenStream(f"ended without {'Started' if started is None else 'Finished'}")
    return _made(started.route, tokens, finished, created)


def _made(route: Route, tokens: Sequence[Token], end: Finished, created: float) -> Answer:
    return Answer(  # each of these is one look at all tokens, since most have nothing but text
        route=route,
        text="".join(map(_text, tokens)),
        tool_calls=_tool_calls(tokens) if any(map(_calls, tokens)) else (),
        logprobs=tuple(each for token in tokens for each in token.logprobs) if any(map(_logprobs, tokens)) else (),
        end=end,
        created=created,
    )


def _tool_calls(tokens: Iterable[Token]) -> tuple[ToolCall, ...]:
    """Streamed parts of tool calls put together, by index: names and IDs come once, arguments concatenate."""
    calls: dict[int, ToolCall] = {}
    for token in tokens:
        for part in token.tool_calls:
            known = calls.get(part.index, ToolCall(index=part.index))
            calls[part.index] = ToolCall(
                id=known.id or part.id,
                name=known.name or part.name,
                arguments=known.arguments + part.arguments,
                index=part.index,
            )
    return tuple(calls[index] for index in sorted(calls))
