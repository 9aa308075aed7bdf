"""A wait that is over is a span which says how long it was, and what came of it."""

from __future__ import annotations

import asyncio

import pytest

from polyroute.core.errors import PeerFailed
from polyroute.core.trace import SAMPLED, Span, Trace
from polyroute.core.wait_span import LEAST_S, keep_wait


@pytest.mark.parametrize(
    ("error", "told", "words"),
    [
        (None, {"x": 1}, None),
        (PeerFailed("it is gone"), {"x": 1, "error.type": "PEER_FAILED"}, "it is gone"),
        (asyncio.CancelledError(), {"x": 1, "polyroute.outcome": "CANCELLED"}, None),
    ],
)
def test_a_wait(error: BaseException | None, told: dict[str, object], words: str | None) -> None:
    spans: list[Span] = []
    parent = Span("call", "server", Trace("a" * 32, "", SAMPLED), spans.append, {})
    keep_wait(parent, "queue", 0.5, {"x": 1}, error)
    keep_wait(parent, "queue", LEAST_S / 2, {"x": 1}, error)
    (span,) = spans
    assert (span.name, span.kind, span.parent_id) == ("queue", "internal", parent.span_id)
    assert span.ended_ns - span.begun_ns >= 500_000_000
    assert (span.attributes, span.error) == (told, words)
