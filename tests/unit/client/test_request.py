"""What a caller writes becomes the request that it means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polyroute.client import Cache, CacheMode, Choice, JsonSchema, Message, Regex, Routing, Tool, ToolCall
from polyroute.client.request import GenerateOptions, build_request, duration
from polyroute.v1 import inference_pb2 as pb

EXAMPLES: dict[str, Any] = {
    "model": "demo",
    "max_tokens": 4,
    "temperature": 0.0,
    "top_p": 0.5,
    "top_k": 0,
    "min_p": 0.25,
    "repetition_penalty": 1.5,
    "presence_penalty": -1.0,
    "frequency_penalty": 2.0,
    "seed": 0,
    "logprobs": 0,
    "stop": ["a", "b"],
    "response_format": Regex("a+"),
    "tools": [Tool("f", "does f", {"type": "object", "required": ["x"]})],
    "tool_choice": "auto",
    "extra": {"guided": {"a": [1, None, True]}},
    "request_id": "mine",
    "routing": Routing("k", "u", "s", "v", True, True),
    "cache": Cache("refresh", 1.5, True),
    "labels": {"team": "a"},
}


def test_every_field_of_the_request_has_a_keyword() -> None:
    fields = {field.name for field in pb.GenerateRequest.DESCRIPTOR.fields} - {"prompt", "messages"}
    assert set(GenerateOptions.__annotations__) == fields
    assert set(EXAMPLES) == fields


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_keyword_is_sent(name: str) -> None:
    request = build_request("x", {name: EXAMPLES[name]})  # type: ignore[misc]  # a key that the loop knows
    sent = {field.name for field, _ in request.ListFields()}
    assert sent == {"prompt", name}, "zero too is sent where presence matters"
    assert {field.name for field, _ in build_request("x", {name: None}).ListFields()} == {"prompt"}  # type: ignore[misc]


def test_every_keyword_arrives_as_it_was_meant() -> None:
    request = build_request("x", EXAMPLES)  # type: ignore[arg-type]
    assert list(request.stop) == ["a", "b"]
    assert request.response_format.regex == "a+"
    assert request.tools[0].parameters["required"][0] == "x"  # type: ignore[index]
    assert request.extra["guided"]["a"][2] is True  # type: ignore[index]
    assert request.routing == pb.RoutingOptions(
        affinity_key="k", user="u", session="s", variant="v", no_shadow=True, no_fallback=True
    )
    assert (request.cache.mode, request.cache.max_age.ToMilliseconds()) == (pb.CACHE_MODE_REFRESH, 1500)
    assert request.cache.original_pace
    assert dict(request.labels) == {"team": "a"}


def test_every_field_of_the_routing_has_one_of_ours() -> None:
    assert set(Routing.__dataclass_fields__) == {field.name for field in pb.RoutingOptions.DESCRIPTOR.fields}
    assert set(Message.__dataclass_fields__) == {field.name for field in pb.Message.DESCRIPTOR.fields}
    assert set(Tool.__dataclass_fields__) == {field.name for field in pb.Tool.DESCRIPTOR.fields}
    assert set(ToolCall.__dataclass_fields__) == {field.name for field in pb.ToolCall.DESCRIPTOR.fields}


def test_one_stop_string_is_one() -> None:
    assert list(build_request("x", {"stop": "END"}).stop) == ["END"]


def test_a_schema_keeps_the_order_of_its_properties() -> None:
    schema = {"properties": {"z": {}, "a": {}}}
    assert build_request("x", {"response_format": JsonSchema(schema)}).response_format.json_schema == json.dumps(schema)
    assert build_request("x", {"response_format": JsonSchema("{}")}).response_format.json_schema == "{}"
    assert build_request("x", {"response_format": Choice(["a"])}).response_format.choice.choices == ["a"]
    assert build_request("x", {"response_format": Choice([])}).response_format.WhichOneof("format") == "choice"


@pytest.mark.parametrize("mode", list(CacheMode))
def test_a_cache_mode_may_stand_alone(mode: CacheMode) -> None:
    number = pb.CacheMode.Value(f"CACHE_MODE_{mode.upper()}")
    assert build_request("x", {"cache": mode}).cache.mode == number
    for written in (str(mode), mode.upper(), mode.replace("_", "-"), f"CACHE_MODE_{mode.upper()}"):
        assert build_request("x", {"cache": written}).cache.mode == number, written


def test_messages_are_dataclasses_or_mappings() -> None:
    call = {"id": "1", "name": "f", "arguments": "{}"}
    request = build_request(
        [
            Message("user", "Hello"),
            {"role": "assistant", "tool_calls": [call]},
            Message("assistant", tool_calls=[ToolCall("2", "g", "{}")]),
            {"role": "tool", "content": "1", "tool_call_id": "1"},
        ],
        {},
    )
    messages = request.messages.messages
    assert [m.role for m in messages] == ["user", "assistant", "assistant", "tool"]
    assert [m.tool_calls[0].name for m in messages[1:3]] == ["f", "g"]
    assert messages[3].tool_call_id == "1"


def test_no_messages_are_still_messages() -> None:
    assert build_request([], {}).WhichOneof("input") == "messages"


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ({"role": "user"}, "list of messages"),
        (3, "list of messages"),
        ([{"role": "user", "text": "x"}], r"messages\[0\]: unknown key `text`"),
        ([{"content": "x"}], r"messages\[0\]: `role` is missing"),
        (["x"], r"messages\[0\]: a Message or a mapping"),
        ([{"role": "assistant", "tool_calls": [{"id": "1"}]}], r"messages\[0\].tool_calls\[0\]: `name` is missing"),
    ],
)
def test_a_prompt_that_is_none_is_refused_by_its_place(prompt: Any, problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        build_request(prompt, {})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_token": 3}, "unknown keyword `max_token`"),
        ({"max_tokens": "3"}, "max_tokens"),
        ({"max_tokens": 2**40}, "max_tokens: "),
        ({"cache": "maybe"}, "`maybe` is none of"),
        ({"response_format": {"type": "json"}}, "response_format"),
        ({"tools": [{"nam": "f"}]}, r"tools\[0\]: unknown key `nam`"),
        ({"extra": {"a": object()}}, "extra: "),
    ],
)
def test_an_option_that_is_none_is_refused(options: Any, problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        build_request("x", options)


@pytest.mark.parametrize("seconds", [0.0, 1.5, 0.1, 3600.25, -1.5, 1e-9])
def test_durations_are_exact_to_the_nanosecond(seconds: float) -> None:
    wire = duration(seconds)
    assert wire.seconds + wire.nanos / 1e9 == seconds
    assert wire.seconds * wire.nanos >= 0, "both have one sign"
