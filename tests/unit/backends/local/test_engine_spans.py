"""What a worker tells of an answer becomes spans under the attempt's."""

from __future__ import annotations

import pytest

from polyroute.backends.local.engine_spans import EngineSpans
from polyroute.backends.local.messages import Begun
from polyroute.core.errors import WorkerDied
from polyroute.core.trace import SAMPLED, Span, Trace

BEGUN = Begun(prompt_tokens=7, cached_prompt_tokens=3, waited_s=0.5, read_s=0.25)


@pytest.fixture
def kept() -> list[Span]:
    return []


@pytest.fixture
def attempt(kept: list[Span]) -> Span:
    return Span("chat m", "client", Trace("a" * 32, "b" * 16, SAMPLED), kept.append, {})


def test_reading_ends_where_the_answer_begins(kept: list[Span], attempt: Span) -> None:
    spans = EngineSpans(attempt)
    spans.saw(None)
    assert not kept
    spans.saw(BEGUN)
    spans.saw(BEGUN)
    spans.end(5, None)
    prefill, decode = kept
    assert [(span.name, span.parent_id) for span in kept] == [
        ("prefill", attempt.span_id),
        ("decode", attempt.span_id),
    ]
    assert prefill.ended_ns - prefill.begun_ns == 250_000_000
    assert prefill.ended_ns == decode.begun_ns <= decode.ended_ns
    assert prefill.attributes == {
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "polyroute.engine.wait": 0.5,
    }
    assert decode.attributes == {"gen_ai.usage.output_tokens": 5}


def test_a_worker_that_dies_fails_the_answer(kept: list[Span], attempt: Span) -> None:
    spans = EngineSpans(attempt)
    spans.saw(BEGUN)
    spans.end(2, WorkerDied("it is gone"))
    assert [span.error for span in kept] == [None, "it is gone"]
    assert kept[1].attributes["error.type"] == "WORKER_DIED"


def test_an_answer_that_never_began_has_none(kept: list[Span], attempt: Span) -> None:
    EngineSpans(attempt).end(0, WorkerDied("it is gone"))
    assert not kept
