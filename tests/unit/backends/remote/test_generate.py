"""The legacy dialect carries what it has words for and refuses the rest."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import fields

from polyroute.backends.remote.dialect import AnsweredError, Malformed
from polyroute.backends.remote.generate import GenerateDialect
from polyroute.core.errors import Unsupported
from polyroute.core.event import FinishReason, Token, Usage
from polyroute.core.request import Message, Request, ResponseFormat, Sampling, Tool

DIALECT = GenerateDialect()
CARRIED = {"max_tokens", "temperature", "top_p", "top_k"}


def test_a_request_with_everything_it_can_carry() -> None:
    sampling = Sampling(max_tokens=5, temperature=0, top_p=0.5, top_k=0)
    sent = DIALECT.outgoing(Request(prompt="x", sampling=sampling, stop=("a",)), "peer")
    assert sent.path == "/v1/generate"
    assert sent.body == {
        "prompt": "x",
        "model": "peer",
        "max_new_tokens": 5,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 0,
        "stop": ["a"],
    }


@pytest.mark.parametrize("name", sorted({field.name for field in fields(Sampling)} - CARRIED))
def test_other_sampling_is_refused_even_where_it_is_zero(name: str) -> None:
    with pytest.raises(Unsupported) as raised:
        DIALECT.outgoing(Request(prompt="x", sampling=Sampling(**{name: 0})), "peer")
    assert raised.value.field == name


@pytest.mark.parametrize(
    "given",
    [
        {"messages": (Message("user", "hi"),)},
        {"prompt": "x", "tools": (Tool("t"),)},
        {"prompt": "x", "tool_choice": "auto"},
        {"prompt": "x", "extra": {"a": 1}},
        {"prompt": "x", "response_format": ResponseFormat("regex", "a")},
    ],
)
def test_what_it_has_no_word_for_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(Unsupported) as raised:
        DIALECT.outgoing(Request(**given), "peer")
    assert raised.value.field in given


def test_a_bare_answer() -> None:
    reader = DIALECT.reader(Request(prompt="x"))
    assert list(reader.whole(b'{"model":"m","output":"hello","cached":false}')) == [Token("hello")]
    assert reader.finished().reason is FinishReason.UNSPECIFIED


def test_an_answer_that_says_more() -> None:
    reader = DIALECT.reader(Request(prompt="x"))
    body = b"""{"output":"","finish_reason":"stop_sequence","matched_stop":"END",
        "usage":{"prompt_tokens":3,"completion_tokens":2,"cached_prompt_tokens":1}}"""
    assert list(reader.whole(body)) == []
    end = reader.finished()
    assert (end.reason, end.matched_stop, end.usage) == (FinishReason.STOP_SEQUENCE, "END", Usage(3, 2, 1))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"output":null}', b'{"output":1}', b'{"output":"a","usage":3}', b'{"output":"\xff"}']
)
def test_wrong_shapes(body: bytes) -> None:
    with pytest.raises(Malformed):
        list(DIALECT.reader(Request(prompt="x")).whole(body))


def test_an_error_in_the_answer() -> None:
    with pytest.raises(AnsweredError, match="out of memory"):
        list(DIALECT.reader(Request(prompt="x")).whole(b'{"error":"out of memory"}'))


def test_a_stream_is_not_of_this_dialect() -> None:
    with pytest.raises(Malformed):
        DIALECT.reader(Request(prompt="x")).event(b"", b"{}")
