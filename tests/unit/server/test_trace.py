"""A caller's trace is found among its headers, wherever they stand."""

from __future__ import annotations

from polyroute.core.trace import NO_TRACE, parse
from polyroute.server.trace import trace_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_trace_stands_among_other_headers() -> None:
    headers = [("user-agent", "x"), ("traceparent", PARENT), ("x-bin", b"1"), ("tracestate", "a=1")]
    assert trace_of(headers) == parse(PARENT, "a=1")


def test_states_are_joined_in_their_order() -> None:
    assert trace_of([("tracestate", "a=1"), ("traceparent", PARENT), ("tracestate", "b=2")]).state == "a=1,b=2"


def test_of_two_parents_there_is_none() -> None:
    assert trace_of([("traceparent", PARENT), ("traceparent", PARENT)]) == NO_TRACE
    assert trace_of([]) == NO_TRACE
    assert trace_of([("tracestate", "a=1")]) == NO_TRACE
