"""The short way of reading a chunk says what the long way says, or nothing at all."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.backends.remote.dialect import AnsweredError, Malformed
from polyroute.backends.remote.openai_answer import OpenAIAnswer
from polyroute.backends.remote.openai_text import text_of
from polyroute.backends.remote.sse import ServerSentEvent
from polyroute.core.event import Token

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
        "finish_reason": ODD,
        "logprobs": ODD,
        "stop_reason": ODD,
    },
)
CHUNK = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE, max_size=2) | st.lists(CHOICE, min_size=1, max_size=1)},
    optional={"usage": ODD, "error": ODD, "id": ODD},
)


def long_way(data: bytes) -> str | None:
    """The text by `event`; None where the chunk brings anything else."""
    reader = OpenAIAnswer(None)
    before = vars(reader).copy()
    try:
        tokens = list(reader.event(b"", data))
    except (Malformed, AnsweredError):
        return None
    text = "".join(token.text for token in tokens)
    if vars(reader) != before | {"begun": bool(text)} or tokens != ([Token(text)] if text else []):
        return None
    return text


@given(CHUNK)
def test_what_is_read_the_short_way_brings_that_text_and_nothing_else(chunk: dict[str, Any]) -> None:
    data = orjson.dumps(chunk)
    text = text_of(data)
    assert text is None or text == long_way(data)


@given(TEXT)
def test_chunks_as_peers_send_them_are_read_the_short_way(text: str) -> None:
    vllm = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    assert text_of(orjson.dumps({**frame, "choices": [vllm]})) == text
    openai = {"index": 0, "delta": {"content": text, "refusal": None, "tool_calls": None}, "finish_reason": None}
    assert text_of(orjson.dumps({**frame, "choices": [openai], "usage": None})) == text
    completion = {"index": 0, "text": text, "logprobs": None, "finish_reason": None, "stop_reason": None}
    assert text_of(orjson.dumps({**frame, "choices": [completion], "usage": None})) == text


@pytest.mark.parametrize(
    "data",
    [
        b"[DONE]",
        b"",
        b"{",
        b"[" * 100_000,
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        b'{"choices":[{"delta":{"content":"\\ud83d"}}]}',
        b'{"choices":[{"delta":{"content":"a"}}]} {}',
    ],
)
def test_what_is_no_chunk_is_left_to_the_long_way(data: bytes) -> None:
    assert text_of(data) is None


def test_a_named_event_is_no_text() -> None:
    data = orjson.dumps({"choices": [{"index": 0, "delta": {"content": "a"}}]})
    reader = OpenAIAnswer(None)
    assert reader.text(ServerSentEvent(b"error", data)) is None
    assert not reader.begun
    assert reader.text(ServerSentEvent(b"", data)) == "a"
    assert reader.begun
