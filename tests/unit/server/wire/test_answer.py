"""Every field of core's answers reaches the wire, and comes back from what is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from msgspec import Struct
from msgspec.structs import fields, replace

from polyroute.core.event import (
    Attempt,
    CacheResult,
    Event,
    Finished,
    FinishReason,
    Route,
    Started,
    Timing,
    Token,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from polyroute.core.request import ToolCall
from polyroute.server.answers import answered
from polyroute.server.wire.answer import (
    answer_to_wire,
    delta_from_wire,
    end_from_wire,
    event_to_wire,
    put_delta,
    put_end,
    route_to_wire,
)
from polyroute.v1 import inference_pb2 as pb

LOGPROB = TokenLogprob("t", b"\xff", -0.5, (TopLogprob("u", b"\xfe", -1.5),))
TOKEN = Token("é", (ToolCall("id", "name", "{}", 1),), (LOGPROB,))
FINISHED = Finished(
    FinishReason.STOP_SEQUENCE, Usage(1, 2, 3), Timing(0.5, 0.25, 1.0, 2.0, 0.125), matched_stop="", seed=0
)
ROUTE = Route(
    requested="r",
    model="m",
    version="v",
    deployment="d",
    replica="p",
    variant="a",
    cache=CacheResult.HIT,
    attempts=(Attempt("d", "p", "a", "PEER_FAILED", "why", 1.5), Attempt("e")),
    reasons=("because",),
    upstream=Route(model="up"),
    trace_id="t" * 32,
    sticky_by="user",
    hash_point=0.0,
    probability=1.0,
    cache_age_s=0.0,
    cache_key="k",
)
NOT_ON_THE_WIRE = {"backend_s"}  # of Timing: the router's own


def delta_to_wire(token: Token) -> pb.GenerateDelta:
    wire = pb.GenerateDelta()
    put_delta(wire, token)
    return wire


def end_to_wire(end: Finished) -> pb.GenerateEnd:
    wire = pb.GenerateEnd()
    put_end(wire, end)
    return wire


def changed(value: Any) -> Any:
    """Another value than `value`, of its type."""
    if isinstance(value, Enum):
        return next(other for other in type(value) if other is not value)
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + "!"
    if isinstance(value, bytes):
        return value + b"!"
    return ()


def everything(value: Any) -> list[tuple[str, Any]]:
    """`value` in which one field, however deep, is another: for every field."""
    changes: list[tuple[str, Any]] = []
    for field in fields(value):
        given = getattr(value, field.name)
        if field.name in NOT_ON_THE_WIRE:
            continue
        if isinstance(given, Route):
            changes.append((field.name, replace(value, **{field.name: None})))
            continue
        if not isinstance(given, Struct):
            changes.append((field.name, replace(value, **{field.name: changed(given)})))
        parts = given if isinstance(given, tuple) else (given,)
        if parts and isinstance(parts[0], Struct):
            for name, inner in everything(parts[0]):
                whole = (inner, *given[1:]) if isinstance(given, tuple) else inner
                changes.append((f"{field.name}.{name}", replace(value, **{field.name: whole})))
    return changes


def filled(descriptor: Descriptor, message: Any, path: str = "") -> list[str]:
    """Paths of fields that are not set anywhere in `message`."""
    empty = []
    set_ = {field.name for field, _ in message.ListFields()}
    for field in descriptor.fields:
        if field.name not in set_:
            empty.append(f"{path}{field.name}")
        elif field.message_type is not None and field.message_type.full_name.startswith("polyroute."):
            value = getattr(message, field.name)
            inner = value[0] if field.is_repeated else value
            if field.message_type.name not in ("Route",):
                empty += filled(field.message_type, inner, f"{path}{field.name}.")
    return empty


@pytest.mark.parametrize(("name", "other"), everything(ROUTE))
def test_every_field_of_a_route_reaches_the_wire(name: str, other: Route) -> None:
    assert route_to_wire(other) != route_to_wire(ROUTE), name


@pytest.mark.parametrize(("name", "other"), everything(FINISHED))
def test_every_field_of_an_end_reaches_the_wire(name: str, other: Finished) -> None:
    assert end_to_wire(other) != end_to_wire(FINISHED), name


UNSAID = ("usage", "pieces", "last")


@pytest.mark.parametrize(("name", "other"), [change for change in everything(TOKEN) if change[0] not in UNSAID])
def test_every_field_of_a_part_reaches_the_wire(name: str, other: Token) -> None:
    assert delta_to_wire(other) != delta_to_wire(TOKEN), name


async def test_no_field_of_a_response_is_left_empty() -> None:
    async def events() -> AsyncIterator[Event]:
        yield Started(ROUTE)
        yield TOKEN
        yield FINISHED

    response = answer_to_wire(await answered(events()), "id")
    assert filled(pb.GenerateResponse.DESCRIPTOR, response) == []
    assert filled(pb.GenerateEnd.DESCRIPTOR, end_to_wire(FINISHED)) == []
    assert filled(pb.GenerateDelta.DESCRIPTOR, delta_to_wire(TOKEN)) == []


def test_the_enums_have_the_same_names_and_numbers() -> None:
    for ours, theirs, prefix in (
        (CacheResult, pb.CacheResult, "CACHE_RESULT_"),
        (FinishReason, pb.FinishReason, "FINISH_REASON_"),
    ):
        assert {f"{prefix}{one.name}": one.value for one in ours} == dict(theirs.items())  # type: ignore[attr-defined]


def test_parts_and_ends_come_back_as_they_were() -> None:
    assert delta_from_wire(delta_to_wire(TOKEN)) == TOKEN
    assert end_from_wire(end_to_wire(FINISHED)) == replace(FINISHED, timing=replace(FINISHED.timing, backend_s=0.0))
    bare = Finished(FinishReason.STOP)
    assert end_from_wire(end_to_wire(bare)) == bare


async def test_parts_of_tool_calls_are_put_together() -> None:
    async def events() -> AsyncIterator[Event]:
        yield Started(Route())
        yield Token(tool_calls=(ToolCall("a", "f", '{"x":', 0),))
        yield Token(tool_calls=(ToolCall("b", "g", "", 1), ToolCall("", "", "1}", 0)))
        yield Token(tool_calls=(ToolCall("", "", "{}", 1),))
        yield Finished(FinishReason.TOOL_CALLS)

    response = answer_to_wire(await answered(events()), "id")
    calls = [(call.id, call.name, call.arguments, call.index) for call in response.tool_calls]
    assert calls == [("a", "f", '{"x":1}', 0), ("b", "g", "{}", 1)]


async def test_the_stream_is_closed_when_collecting_fails() -> None:
    closed = False

    async def events() -> AsyncIterator[Event]:
        nonlocal closed
        try:
            yield Started(Route())
            yield Token("\ud800")  # what no wire text can hold
            yield Finished(FinishReason.STOP)
        finally:
            closed = True

    with pytest.raises(UnicodeEncodeError):
        answer_to_wire(await answered(events()), "id")
    assert closed


def test_an_event_says_what_it_is_though_it_says_nothing_else() -> None:
    start = event_to_wire(Started(Route()), 7, "id")
    delta, end = event_to_wire(Token(), 8, "id"), event_to_wire(Finished(FinishReason.UNSPECIFIED), 9, "id")
    assert [event.WhichOneof("event") for event in (start, delta, end)] == ["start", "delta", "end"]
    assert [event.sequence for event in (start, delta, end)] == [7, 8, 9]
    assert (start.start.request_id, start.start.HasField("route")) == ("id", True)
