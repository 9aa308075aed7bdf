"""What is read in one step is read as `ChatBody` reads it, and nothing that it would refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.core.errors import InvalidArgument
from polyroute.server.rest.asked import Asked
from polyroute.server.rest.chat_body import ChatBody
from polyroute.server.rest.json_body import parse_body
from polyroute.server.rest.plain_chat import plain_chat

MOST = 4
SAID: list[dict[str, Any]] = [{"role": "user", "content": "Hello, \u00e9: {}"}]

NUMBERS = st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.just(1.0)
TEXTS = st.none() | st.text(max_size=8) | st.sampled_from(['":', '"a": 1', "\u00e9", "\ud800", '\\":'])
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "developer", ""]), "content": TEXTS | st.just([])},
    optional={"name": st.none() | st.text(max_size=2), "tool_call_id": TEXTS},
)
BODIES = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGES, max_size=MOST + 1)},
    optional={
        "model": TEXTS,
        **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), NUMBERS),
        **dict.fromkeys(("max_tokens", "seed", "top_k", "max_completion_tokens"), NUMBERS),
        "stop": TEXTS | st.lists(TEXTS, max_size=2),
        "stream": st.none() | st.booleans(),
        "stream_options": st.none() | st.just({}) | st.builds(lambda usage: {"include_usage": usage}, NUMBERS),
        "user": TEXTS,
        "logprobs": st.none() | st.booleans(),
        "zzz": st.just(1),
    },
)


def long_way(raw: bytes) -> Asked | None:
    try:
        return parse_body(raw, ChatBody, {"messages": MOST}).asked()
    except InvalidArgument:
        return None


def spaced(body: Any, colon: str) -> bytes:
    return json.dumps(body, separators=(", ", colon)).encode()


@given(BODIES, st.sampled_from([":", ": ", " :", "\t: ", "\n:\n"]))
def test_both_ways_read_the_same(body: Any, colon: str) -> None:
    read = plain_chat(raw := spaced(body, colon), MOST)
    assert read is None or read == long_way(raw)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"model": "m", "temperature": 0, "max_tokens": 5, "top_p": 0.5, "seed": 7},
        {"presence_penalty": 1, "frequency_penalty": -1.5, "stop": "x", "user": "u"},
        {"stop": ["x", "y"], "stream": True, "stream_options": {"include_usage": True}},
        {"model": None, "temperature": None, "stream": False},
    ],
)
def test_the_commonest_are_read_in_one_step(more: dict[str, Any]) -> None:
    for colon in (":", ": ", " : "):
        raw = spaced({"messages": [{"role": "system", "content": "s"}, *SAID], **more}, colon)
        assert (read := plain_chat(raw, MOST)) is not None
        assert read == long_way(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages": [{"role": "user", "content": "x"}], "seed": 1, "seed": 2}',
        b'{"messages": [{"role": "user", "content": "x"}], "seed": 1, "seed" : 2}',
        b'{"messages": [{"role": "user", "content": "x", "content": "y"}]}',
        b'{"messages": [{"role": "user", "content": "x", "content"\n: "y"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "\\u0073eed": 1, "seed": 2}',
        b'{"messages": [{"role": "user", "content": "x"}], "messages": []}',
        b'{"messages": [], "stream": true, "stream_options": {"include_usage": true, "include_usage": false}}',
        b'{"messages": [{"role": "user", "content": "x"}], "stream_options": {"include_usage": true}}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [], "temperature": NaN}',
        b'{"messages": [], "temperature": 1e999}',
        b'{"messages": []} {}',
        b"",
        b"[]",
        b"[" * 100_000,
    ],
)
def test_what_may_be_wrong_is_left_to_be_judged(raw: bytes) -> None:
    assert plain_chat(raw, MOST) is None


def test_more_messages_than_are_allowed_are_not_read() -> None:
    raw = spaced({"messages": SAID * (MOST + 1)}, ":")
    assert plain_chat(raw, MOST) is None
    assert plain_chat(raw, MOST + 1) is not None
