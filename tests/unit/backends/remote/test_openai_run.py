"""Chunks that are read many at once are read as each by itself would be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polyroute.backends.remote.dialect import AnsweredError, Malformed
from polyroute.backends.remote.openai_answer import OpenAIAnswer
from polyroute.backends.remote.openai_run import texts_of_run
from polyroute.core.event import Token

ODD = '", "content": "x", \\"\\u0041 \n\t {"a":1}]} \x7f é 🎉 \u2028 ?'
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from([ODD, "", "?", "a", '"', "\\"])
FRAME = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def chat(text: object) -> dict[str, Any]:
    return {**FRAME, "choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}]}


def completion(text: object) -> dict[str, Any]:
    return {"choices": [{"text": text, "index": 0}], "usage": None, **FRAME}


def late(text: object) -> dict[str, Any]:
    return {
        "choices": [{"delta": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 3},
        "object": "content",
    }


def other(text: object) -> dict[str, Any]:
    return {"text": "content", "content": "a", "choices": [{"text": "b", "delta": {"content": text}}]}


def twofold(text: object) -> dict[str, Any]:
    return {**FRAME, "choices": [{"index": 0, "delta": {"content": text}, "text": "b"}]}


SHAPES: list[Callable[[object], dict[str, Any]]] = [chat, completion, late, other, twofold]
WRITERS: list[Callable[[object], bytes]] = [
    orjson.dumps,
    lambda value: json.dumps(value).encode(),
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", " :  ")).encode(),
]


def known(reader: OpenAIAnswer) -> dict[str, Any]:
    """What a reader knows of the answer, and not of how it reads."""
    return {name: value for name, value in vars(reader).items() if name != "_unlike"}


def apart(chunks: list[bytes]) -> tuple[list[str], dict[str, Any], str]:
    """What the texts are, what the reader then knows, and how it failed, where each chunk goes the long way."""
    reader, texts = OpenAIAnswer(None), list[str]()
    try:
        for chunk in chunks:
            tokens = list(reader.event(b"", chunk))
            texts += [token.text for token in tokens if token == Token(token.text)]
            if reader.done:
                break
    except (Malformed, AnsweredError) as error:
        return texts, known(reader), type(error).__name__
    return texts, known(reader), ""


def together(chunks: list[bytes]) -> tuple[list[str], dict[str, Any], str]:
    """The same where as many as can be are read at once."""
    reader, texts, left = OpenAIAnswer(None), list[str](), chunks
    try:
        while left and not reader.done:
            taken = reader.texts(left)
            texts += filter(None, taken)
            left = left[len(taken) :]
            if left and not reader.done:
                tokens = list(reader.event(b"", left[0]))
                texts += [token.text for token in tokens if token == Token(token.text)]
                left = left[1:]
    except (Malformed, AnsweredError) as error:
        return texts, known(reader), type(error).__name__
    return texts, known(reader), ""


@given(st.sampled_from(SHAPES), st.sampled_from(WRITERS), st.lists(TEXT, min_size=1, max_size=12))
@example(chat, orjson.dumps, ["a", *[ODD] * 6])
@example(twofold, orjson.dumps, ["a", "a", "", "a", "a"])
def test_a_stream_of_texts(shape: Callable[[object], Any], write: Callable[[object], bytes], texts: list[str]) -> None:
    chunks = [write(shape(text)) for text in texts]
    assert together([*chunks, b"[DONE]"]) == apart([*chunks, b"[DONE]"])
    assert together([*chunks, b"[DONE]", *chunks]) == apart([*chunks, b"[DONE]"])


def wrapped(inside: bytes) -> bytes:
    """A chunk with `inside` where the text's string is, quotes and all."""
    return b'{"id":"1","choices":[{"index":0,"delta":{"content":' + inside + b'},"finish_reason":null}]}'


INSIDE = [
    *(b'"a"', b'"a"', b'"a"', b'""', b"null", b"5", b'"a","content":"b"', b'"a","role":"b"', b'"\\', b'b"', b'"'),
    *(
        b'"\\u0041"',
        b'"\\ud83d\\ude00"',
        b'"\\ud83d"',
        b'"\\x"',
        b'"\xff"',
        b'"\xc3\xa9"',
        b'"\t"',
        b'"a\x00"',
        b'"\\n"',
    ),
    *(
        b'"a"},"finish_reason":"stop","delta":{"content":"b"',
        b'"a\\"',
        b'","',
        b'"a"}}]},{"choices":[{"delta":{"content":"b"',
    ),
    *(b'"a","refusal":"no"', b'"a","tool_calls":[{"index":0}]', b'"a","reasoning":"hm"', b'["a"]', b' "a" ', b'"a",'),
]
END = orjson.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
ENDED_TEXT = orjson.dumps(
    {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "stop_reason": "a"}]}
)
WHOLE = [
    *(b"[DONE]", b"{}", b"", b"{", b'{"error":{"message":"hot"}}', b'{"choices":[],"usage":{"prompt_tokens":5}}'),
    END,
    orjson.dumps({"choices": [{"index": 0, "delta": {"content": "z"}, "finish_reason": "abort"}]}),
    orjson.dumps({"choices": [{"index": 1, "delta": {"content": "z"}}]}),
    orjson.dumps({"choices": [{"index": 0, "delta": {"content": "z"}}, {"index": 0, "delta": {"content": "y"}}]}),
]
CHUNK = st.sampled_from([*INSIDE]).map(wrapped) | st.sampled_from(WHOLE) | TEXT.map(lambda t: wrapped(orjson.dumps(t)))


@given(st.lists(CHUNK, max_size=12))
@example([wrapped(inside) for inside in (b'"a"', b'"b"', b'"x","y"', b'"c"', b'"d"')])
@example([wrapped(inside) for inside in (b'"a"', b'"b"', b'"x","y"', b'"a\\"', b'"c"', b'"d"')])
@example([wrapped(inside) for inside in (b'"a"', b'"b"', b'"a\\"', b'","z"', b'"d"')])
@example([wrapped(inside) for inside in (b'"a"', b'"b"', b"null", b'"c"', b'"d"')])
@example([END, *[wrapped(b'"a"')] * 5])
@example([ENDED_TEXT, ENDED_TEXT, ENDED_TEXT, ENDED_TEXT, ENDED_TEXT])
def test_odd_chunks_among_them(chunks: list[bytes]) -> None:
    assert together(chunks) == apart(chunks)


@pytest.mark.parametrize("shape", [chat, completion, late])
@pytest.mark.parametrize("write", WRITERS[:2])
def test_most_are_read_at_once(shape: Callable[[object], Any], write: Callable[[object], bytes]) -> None:
    first, *rest = [write(shape(text)) for text in ("a", "", ODD, "a")]
    assert texts_of_run(first, rest) == ["", ODD, "a"]
    assert texts_of_run(first, [*rest, b"[DONE]", b"{}"]) == ["", ODD, "a"]
    assert texts_of_run(first, []) == []
