"""A call keeps what it says wherever it goes."""

from __future__ import annotations

from typing import Any

from msgspec.structs import fields

from polyroute.core.call import Call, Entrance, Worked, new_request_id
from polyroute.core.request import Request
from polyroute.core.trace import Trace


def test_a_call_in_another_trace_differs_in_nothing_else() -> None:
    given: dict[str, Any] = {
        "request": Request("m"),
        "request_id": "r1",
        "arrived": 1.0,
        "deadline": 2.0,
        "trace": Trace("a" * 32, "b" * 16),
        "wait_for_load": False,
        "copy": True,
        "headers": {"h": "v"},
        "entrance": Entrance("grpc", "m"),
        "tenant": "t",
        "start_by": 3.0,
        "worked": Worked(Request("m")),
    }
    assert set(given) == {field.name for field in fields(Call)}
    other = Trace("c" * 32, "d" * 16)
    assert Call(**given).under(other) == Call(**{**given, "trace": other})


def test_no_two_calls_have_one_id() -> None:
    made = {new_request_id() for _ in range(1000)}
    assert len(made) == 1000
    assert {len(id) for id in made} == {32}
