"""Answers of OpenAI-compatible peers, streamed and whole, in the forms that peers really send."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from polyroute.backends.remote.dialect import AnsweredError, Malformed
from polyroute.backends.remote.openai_answer import OpenAIAnswer
from polyroute.core.event import FinishReason, Token, TokenLogprob, TopLogprob, Usage
from polyroute.core.request import ToolCall


def chunk(delta: dict[str, Any] | None = None, **choice: Any) -> bytes:
    return orjson.dumps({"choices": [{"index": 0, "delta": delta or {}, **choice}]})


def read(reader: OpenAIAnswer, *chunks: bytes) -> list[Token]:
    return [token for data in chunks for token in reader.event(b"", data)]


def test_a_chat_stream() -> None:
    reader = OpenAIAnswer(seed=7)
    assert read(reader, chunk({"role": "assistant", "content": ""})) == []
    assert not reader.begun
    assert read(reader, chunk({"content": "a"}), chunk({"content": "b"})) == [Token("a"), Token("b")]
    assert reader.begun
    usage = {"prompt_tokens": 4, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    read(reader, chunk(finish_reason="stop"), orjson.dumps({"choices": [], "usage": usage}), b"[DONE]")
    assert reader.done
    end = reader.finished()
    assert (end.reason, end.usage, end.seed, end.matched_stop) == (FinishReason.STOP, Usage(4, 2, 1), 7, None)


def test_a_completion_stream() -> None:
    reader = OpenAIAnswer(None)
    data = orjson.dumps({"choices": [{"index": 0, "text": "a", "finish_reason": "length"}], "usage": None})
    assert read(reader, data) == [Token("a")]
    assert reader.finished().reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("choice", "reason", "stop"),
    [
        ({"finish_reason": "stop"}, FinishReason.STOP, None),
        ({"finish_reason": "stop", "stop_reason": "END"}, FinishReason.STOP_SEQUENCE, "END"),
        ({"finish_reason": "stop", "matched_stop": "END"}, FinishReason.STOP_SEQUENCE, "END"),
        ({"finish_reason": "stop", "stop_reason": 128009}, FinishReason.STOP, None),
        ({"finish_reason": "stop", "stop_reason": None}, FinishReason.STOP, None),
        ({"finish_reason": "length"}, FinishReason.LENGTH, None),
        ({"finish_reason": "tool_calls"}, FinishReason.TOOL_CALLS, None),
        ({"finish_reason": "function_call"}, FinishReason.TOOL_CALLS, None),
        ({"finish_reason": "content_filter"}, FinishReason.CONTENT_FILTER, None),
        ({"finish_reason": "a new one"}, FinishReason.UNSPECIFIED, None),
    ],
)
def test_finish_reasons(choice: dict[str, Any], reason: FinishReason, stop: str | None) -> None:
    reader = OpenAIAnswer(None)
    read(reader, chunk(**choice))
    assert reader.begun
    assert (reader.finished().reason, reader.finished().matched_stop) == (reason, stop)


def test_tool_calls_in_parts() -> None:
    reader = OpenAIAnswer(None)
    first = {"index": 1, "id": "c1", "type": "function", "function": {"name": "find", "arguments": ""}}
    tokens = read(
        reader,
        chunk({"tool_calls": [first]}),
        chunk({"tool_calls": [{"index": 1, "id": None, "function": {"name": None, "arguments": '{"q"'}}]}),
    )
    assert [token.tool_calls[0] for token in tokens] == [
        ToolCall("c1", "find", "", 1),
        ToolCall("", "", '{"q"', 1),
    ]


def test_reasoning_begins_the_answer_and_is_no_part_of_it() -> None:
    reader = OpenAIAnswer(None)
    assert read(reader, chunk({"reasoning_content": "hm"})) == []
    assert reader.begun


def test_log_probabilities_of_chat() -> None:
    content = [
        {
            "token": "\ufffd",
            "logprob": -0.5,
            "bytes": [0xE2, 0x82],
            "top_logprobs": [{"token": "a", "logprob": -1, "bytes": None}],
        }
    ]
    (token,) = read(OpenAIAnswer(None), chunk({"content": ""}, logprobs={"content": content}))
    assert token.logprobs == (TokenLogprob("\ufffd", b"\xe2\x82", -0.5, (TopLogprob("a", b"a", -1.0),)),)


def test_log_probabilities_of_completions() -> None:
    lists = {"tokens": ["a", "b"], "token_logprobs": [-1, -2], "top_logprobs": [{"c": -3, "a": -1}, None]}
    data = orjson.dumps({"choices": [{"index": 0, "text": "ab", "logprobs": lists}]})
    (token,) = read(OpenAIAnswer(None), data)
    assert token.logprobs == (
        TokenLogprob("a", b"a", -1.0, (TopLogprob("a", b"a", -1.0), TopLogprob("c", b"c", -3.0))),
        TokenLogprob("b", b"b", -2.0),
    )


def test_a_whole_chat_answer() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call, {**call, "id": "c2"}]}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": {"prompt_tokens": 3}}
    reader = OpenAIAnswer(None)
    assert list(reader.whole(orjson.dumps(body))) == [
        Token("", (ToolCall("c1", "find", "{}", 0), ToolCall("c2", "find", "{}", 1)))
    ]
    assert reader.done
    assert reader.finished().usage == Usage(3)


def test_a_whole_completion() -> None:
    reader = OpenAIAnswer(None)
    body = b'{"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}'
    assert list(reader.whole(body)) == [Token("a")]


@pytest.mark.parametrize("chunks", [[], [b"[DONE]"], [chunk({"content": "a"}), b"[DONE]"]])
def test_without_a_finish_reason_there_is_no_end(chunks: list[bytes]) -> None:
    reader = OpenAIAnswer(None)
    read(reader, *chunks)
    with pytest.raises(Malformed):
        reader.finished()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        (b"", b'{"error":{"message":"out of memory","code":500}}', "out of memory"),
        (b"", b'{"error":"out of memory"}', "out of memory"),
        (b"error", b'{"message":"out of memory"}', "out of memory"),
        (b"", chunk(finish_reason="abort"), "abort"),
    ],
)
def test_errors_amid_the_answer(name: bytes, data: bytes, says: str) -> None:
    with pytest.raises(AnsweredError, match=says):
        list(OpenAIAnswer(None).event(name, data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"[]",
        b"<html>",
        b'{"choices":{}}',
        b'{"choices":[1]}',
        b'{"choices":[{"delta":[]}]}',
        b'{"choices":[{"delta":{"content":5}}]}',
        b'{"choices":[{"delta":{"content":["a"]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":"x"}]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":4294967296}]}}]}',
        b'{"choices":[{"index":-1}]}',
        b'{"choices":[{"finish_reason":1}]}',
        b'{"choices":[{"logprobs":{"content":[{"token":"a"}]}}]}',
        b'{"choices":[{"logprobs":{"tokens":["a"],"token_logprobs":[]}}]}',
        b'{"choices":[{"logprobs":{"content":[{"token":"a","logprob":-1,"bytes":[999]}]}}]}',
        b'{"usage":{"prompt_tokens":-1}}',
        b'{"usage":{"prompt_tokens":1.5}}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        b'{"choices":[{"delta":{"content":"\\ud800"}}]}',
        b"[" * 5000,
    ],
)
def test_wrong_shapes(data: bytes) -> None:
    with pytest.raises(Malformed):
        list(OpenAIAnswer(None).event(b"", data))


@pytest.mark.parametrize("body", [b"{}", b'{"choices":[]}', b"[]", b"", b"null"])
def test_wrong_shapes_of_a_whole_answer(body: bytes) -> None:
    with pytest.raises(Malformed):
        list(OpenAIAnswer(None).whole(body))


def test_other_choices_are_not_mixed_in() -> None:
    data = orjson.dumps(
        {"choices": [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "yes"}}]}
    )
    assert read(OpenAIAnswer(None), data) == [Token("yes")]
