"""Trace context is read and written as W3C has it, and spans of a call hang together."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.core.trace import MOST_EVENTS, NO_TRACE, SAMPLED, Span, Trace, parse, untraced

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def test_well_formed_headers_are_read() -> None:
    assert parse(PARENT, "a=1,b=2") == Trace(TRACE_ID, SPAN_ID, SAMPLED, "a=1,b=2")
    assert not parse(PARENT[:-1] + "0").sampled


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "nonsense",
        PARENT.upper(),
        PARENT + "\n",
        PARENT + "x",
        PARENT + "-more",
        "ff" + PARENT[2:],
        PARENT.replace(TRACE_ID, "0" * 32),
        PARENT.replace(SPAN_ID, "0" * 16),
    ],
)
def test_others_are_left_out(parent: str) -> None:
    assert parse(parent, "a=1") == NO_TRACE


def test_a_later_version_may_say_more() -> None:
    assert parse("01" + PARENT[2:] + "-more") == parse(PARENT)


@pytest.mark.parametrize("state", ["x" * 600, "\x00", ""])
def test_a_bad_state_leaves_the_parent(state: str) -> None:
    assert parse(PARENT, state) == Trace(TRACE_ID, SPAN_ID, SAMPLED)


@given(st.text(), st.text())
def test_whatever_comes_is_read_or_left_out(parent: str, state: str) -> None:
    found = parse(parent, state)
    assert found == NO_TRACE or parse(**_named(found)) == found


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_what_is_written_is_read_again(trace_id: int, span_id: int, flags: int) -> None:
    trace = Trace(f"{trace_id:032x}", f"{span_id:016x}", flags, "vendor=1")
    assert parse(**_named(trace)) == trace


def _named(trace: Trace) -> dict[str, str]:
    headers = trace.headers()
    return {"parent": headers["traceparent"], "state": headers.get("tracestate", "")}


def test_without_a_trace_there_are_no_headers() -> None:
    assert NO_TRACE.headers() == {}


def test_a_router_that_keeps_no_spans_passes_the_callers_on_as_it_is() -> None:
    given = parse(PARENT, "a=1")
    assert untraced(given) is given
    made, other = untraced(NO_TRACE), untraced(NO_TRACE)
    assert made.trace_id != other.trace_id
    assert parse(made.headers()["traceparent"]) == made
    assert not made.sampled


def test_spans_are_children_of_each_other_and_kept_once() -> None:
    kept: list[Span] = []
    root = Span("call", "server", Trace(TRACE_ID, SPAN_ID, SAMPLED, "a=1"), kept.append, {"x": 1})
    child = root.child("attempt", "client", begun_ns=5)
    child.failed("LOST", "it is gone")
    child.end()
    child.end()
    root.end()
    assert kept == [child, root]
    assert (root.trace_id, root.parent_id) == (TRACE_ID, SPAN_ID)
    assert (child.trace_id, child.parent_id, child.state) == (TRACE_ID, root.span_id, "a=1")
    assert (child.error, child.attributes) == ("it is gone", {"error.type": "LOST"})
    assert child.begun_ns == 5 < child.ended_ns
    under = Trace(TRACE_ID, SPAN_ID, SAMPLED, "a=1").under(child)
    assert under.headers() == {"traceparent": f"00-{TRACE_ID}-{child.span_id}-01", "tracestate": "a=1"}


def test_a_span_never_ends_before_it_has_begun() -> None:
    span = Span("call", "server", NO_TRACE, lambda _: None, {}, begun_ns=10)
    span.end(at_ns=3)
    assert span.ended_ns == 10


def test_events_are_bounded_and_those_left_out_counted() -> None:
    span = Span("call", "server", NO_TRACE, lambda _: None, {})
    for _ in range(MOST_EVENTS + 3):
        span.event("again")
    assert (len(span.events), span.events_dropped) == (MOST_EVENTS, 3)


FORKED = """
import os
from polyroute.core.trace import begun
begun()
child = os.fork()
if child:
    os.waitpid(child, 0)  # so that one writes after the other
print(begun().trace_id, begun().span_id, flush=True)
"""


def test_a_forked_process_draws_other_ids() -> None:
    told = subprocess.run([sys.executable, "-c", FORKED], check=True, capture_output=True, text=True, timeout=60)
    ids = told.stdout.split()
    assert len(ids) == len(set(ids)) == 4
