"""Trace headers are passed on where they are well formed, and dropped where they are not."""

from __future__ import annotations

import pytest

from polyroute.server.trace import trace_headers

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_well_formed_headers_go_on() -> None:
    assert trace_headers([PARENT], []) == (("traceparent", PARENT),)
    assert trace_headers([PARENT], ["a=1", "b=2"]) == (("traceparent", PARENT), ("tracestate", "a=1,b=2"))


@pytest.mark.parametrize(
    "parents", [[], [""], ["nonsense"], [PARENT.upper()], [PARENT, PARENT], [PARENT + "\n"], [PARENT + "x"]]
)
def test_others_do_not(parents: list[str]) -> None:
    assert trace_headers(parents, ["a=1"]) == ()


def test_a_bad_state_leaves_the_parent() -> None:
    assert trace_headers([PARENT], ["x" * 600]) == (("traceparent", PARENT),)
    assert trace_headers([PARENT], ["\x00"]) == (("traceparent", PARENT),)
