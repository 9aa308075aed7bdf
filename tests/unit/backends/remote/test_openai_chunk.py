"""The short way of reading a chunk says what the long way says, or nothing at all."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.backends.remote.dialect import AnsweredError, Malformed
from polyroute.backends.remote.openai_answer import OpenAIAnswer
from polyroute.core.event import Finished, FinishReason, Token, Usage

ODD = st.sampled_from([None, "", "x", "stop", 0, 1, 1.5, True, [], ["x"], {}, {"a": 1}, [None]])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
DELTA = st.dictionaries(
    st.sampled_from(["content", "role", "refusal", "reasoning", "reasoning_content", "tool_calls", "other"]),
    ODD | TEXT,
    max_size=4,
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 0, 0, 1, None]) | ODD,
        "delta": DELTA | ODD,
        "text": TEXT | ODD,
        "finish_reason": st.sampled_from(["stop", "length", "abort", "odd"]) | ODD,
        "logprobs": ODD,
        "stop_reason": ODD,
        "matched_stop": ODD,
    },
)
COUNT = st.sampled_from([0, 1, 2**63 - 1, 2**63, -1, 1.0, 1e3, None, "1", True])
DETAILS = st.dictionaries(st.sampled_from(["cached_tokens", "audio_tokens"]), COUNT, max_size=2)
USAGE = st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens"]), COUNT
) | st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 9)}, optional={"completion_tokens": COUNT, "prompt_tokens_details": DETAILS | ODD}
)
CHUNK = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE, max_size=2) | st.lists(CHOICE, min_size=1, max_size=1)},
    optional={"usage": USAGE | ODD, "error": ODD, "id": ODD},
)


def read(data: bytes, *, short: bool) -> tuple[str, dict[str, Any]] | None:
    """What a chunk brings one way, and what the reader then knows; None where that way refuses it."""
    reader = OpenAIAnswer(None)
    before = vars(reader).copy()
    if short:
        texts = reader.texts([data])
        if not texts:
            assert vars(reader) == before, "nothing is taken of what the long way is to take"
            return None
        (text,) = texts
    else:
        try:
            tokens = list(reader.event(b"", data))
        except (Malformed, AnsweredError):
            return None
        text = "".join(token.text for token in tokens)
        if tokens != ([Token(text)] if text else []):
            return None
    return text, vars(reader)


@given(CHUNK)
def test_what_is_read_the_short_way_is_read_the_same_the_long_way(chunk: dict[str, Any]) -> None:
    data = orjson.dumps(chunk)
    short = read(data, short=True)
    assert short is None or short == read(data, short=False)


FRAME = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


@given(TEXT)
def test_chunks_as_peers_send_them_are_read_the_short_way(text: str) -> None:
    vllm = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    openai = {"index": 0, "delta": {"content": text, "refusal": None, "tool_calls": None}, "finish_reason": None}
    completion = {"index": 0, "text": text, "logprobs": None, "finish_reason": None, "stop_reason": None}
    for choice in (vllm, openai, completion):
        for usage in ({}, {"usage": None}):
            assert OpenAIAnswer(None).texts([orjson.dumps({**FRAME, "choices": [choice], **usage})]) == [text]


def test_the_end_and_the_usage_are_read_the_short_way() -> None:
    reader = OpenAIAnswer(7)
    end = {"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": "stop", "stop_reason": "\n\n"}
    assert reader.texts([orjson.dumps({**FRAME, "choices": [end]})]) == [""]
    assert reader.begun
    details = {"cached_tokens": 3, "audio_tokens": 0}
    usage = {"prompt_tokens": 5, "total_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": details}
    assert reader.texts([orjson.dumps({**FRAME, "choices": [], "usage": usage})]) == [""]
    assert reader.finished() == Finished(FinishReason.STOP_SEQUENCE, Usage(5, 2, 3), matched_stop="\n\n", seed=7)


def test_done_is_the_last_that_is_taken() -> None:
    reader = OpenAIAnswer(None)
    said = orjson.dumps({**FRAME, "choices": [{"index": 0, "delta": {"content": "a"}}]})
    assert reader.texts([said, b"[DONE]", said]) == ["a", ""]
    assert reader.done


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        b'{"choices":[{"delta":{"content":"\\ud83d"}}]}',
        b'{"choices":[{"delta":{"content":"a"}}]} {}',
        b'{"choices":[{"delta":{"content":"a"},"finish_reason":"abort"}]}',
        b'{"choices":[],"usage":{"prompt_tokens":18446744073709551616}}',
    ],
)
def test_what_is_no_chunk_is_left_to_the_long_way(data: bytes) -> None:
    assert read(data, short=True) is None
