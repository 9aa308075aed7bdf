"""Each field of a request reaches an OpenAI-compatible peer under its name, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import fields

from polyroute.backends.remote.openai_request import RESERVED, outgoing
from polyroute.core.errors import InvalidArgument, Unsupported
from polyroute.core.request import Message, Request, ResponseFormat, RoutingOptions, Sampling, Tool, ToolCall

CHAT = (Message("user", "hi"),)
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


def body(**request: Any) -> dict[str, Any]:
    return dict(outgoing(Request(**request), "peer").body)


def test_a_plain_prompt_has_nothing_that_was_not_set() -> None:
    sent = outgoing(Request(prompt="once"), "peer")
    assert sent.path == "/v1/completions"
    assert sent.body == {"model": "peer", "prompt": "once", **STREAM}


def test_a_conversation_goes_to_chat() -> None:
    calls = (ToolCall("c1", "find", '{"q":1}'),)
    messages = (Message("system", "s"), *CHAT, Message("assistant", "", calls), Message("tool", "found", (), "c1"))
    sent = outgoing(Request(messages=messages), "peer")
    assert sent.path == "/v1/chat/completions"
    assert sent.body["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q":1}'}}],
        },
        {"role": "tool", "content": "found", "tool_call_id": "c1"},
    ]


def test_every_sampling_field_is_sent_even_where_it_is_zero() -> None:
    zeros = {field.name: 0 for field in fields(Sampling)}
    for given in ({"prompt": "x"}, {"messages": CHAT}):
        sent = body(sampling=Sampling(**zeros), **given)
        assert zeros.keys() <= sent.keys()


def test_log_probabilities_in_both_forms() -> None:
    assert body(prompt="x", sampling=Sampling(logprobs=0))["logprobs"] == 0
    sent = body(messages=CHAT, sampling=Sampling(logprobs=3))
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 3)


@pytest.mark.parametrize(
    ("form", "chat", "completion"),
    [
        (
            ResponseFormat("json_schema", '{"type":"object"}'),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}},
                }
            },
            {"structured_outputs": {"json": {"type": "object"}}},
        ),
        (
            ResponseFormat("regex", "a+"),
            {"structured_outputs": {"regex": "a+"}},
            {"structured_outputs": {"regex": "a+"}},
        ),
        (
            ResponseFormat("choice", ("a", "b")),
            {"structured_outputs": {"choice": ("a", "b")}},
            {"structured_outputs": {"choice": ("a", "b")}},
        ),
    ],
)
def test_response_formats(form: ResponseFormat, chat: dict[str, Any], completion: dict[str, Any]) -> None:
    assert body(messages=CHAT, response_format=form) == {
        "model": "peer",
        "messages": [{"role": "user", "content": "hi"}],
        **chat,
        **STREAM,
    }
    assert body(prompt="x", response_format=form) == {"model": "peer", "prompt": "x", **completion, **STREAM}


def test_tools() -> None:
    tools = (Tool("find", "Finds.", {"type": "object"}), Tool("bare"))
    sent = body(messages=CHAT, tools=tools, tool_choice="find")
    assert sent["tools"] == [
        {"type": "function", "function": {"name": "find", "description": "Finds.", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "bare"}},
    ]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "find"}}
    assert body(messages=CHAT, tools=tools, tool_choice="required")["tool_choice"] == "required"


@pytest.mark.parametrize("given", [{"tools": (Tool("find"),)}, {"tool_choice": "auto"}])
def test_tools_with_a_prompt_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Unsupported) as raised:
        body(prompt="x", **given)
    assert raised.value.field == next(iter(given))


def test_stop_and_user() -> None:
    sent = body(prompt="x", stop=("a", "b"), routing=RoutingOptions(user="u", session="s"))
    assert (sent["stop"], sent["user"]) == (["a", "b"], "u")


def test_extra_is_merged_at_the_top() -> None:
    assert body(prompt="x", extra={"logit_bias": {"5": 1}, "ignore_eos": True})["ignore_eos"] is True


@pytest.mark.parametrize("key", sorted(RESERVED))
def test_extra_cannot_replace_what_is_mapped(key: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        body(prompt="x", extra={key: 1})
    assert raised.value.field == "extra"
    assert key in raised.value.problem


def test_every_key_that_is_ever_written_is_reserved() -> None:
    everything = {
        "sampling": Sampling(**{field.name: 0 for field in fields(Sampling)}),
        "stop": ("s",),
        "routing": RoutingOptions(user="u"),
    }
    written = set(body(messages=CHAT, tools=(Tool("t"),), tool_choice="t", **everything))
    written |= set(body(prompt="x", response_format=ResponseFormat("regex", "a"), **everything))
    written |= set(body(messages=CHAT, response_format=ResponseFormat("json_schema", "{}"), **everything))
    assert written <= RESERVED


HANDLED = {"model", "prompt", "messages", "sampling", "stop", "response_format", "tools", "tool_choice", "extra"}
NOT_THE_MODELS = {"request_id", "routing", "cache", "labels"}


def test_no_field_of_a_request_goes_unconsidered() -> None:
    assert {field.name for field in fields(Request)} == HANDLED | NOT_THE_MODELS
