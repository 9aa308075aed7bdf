"""A request that makes no sense is refused with the field and the limit."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec.structs import fields, replace

from polyroute.core.config import LimitsConfig
from polyroute.core.errors import InvalidArgument
from polyroute.core.request import (
    CacheOptions,
    Message,
    Request,
    ResponseFormat,
    RoutingOptions,
    Sampling,
    Tool,
    ToolCall,
)
from polyroute.core.validate import SAMPLING_RANGES, is_model_name, validate

LIMITS = LimitsConfig()
GOOD = Request(prompt="hello")


def refused(request: Request, **names: str) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        validate(request, LIMITS, names)
    return caught.value


def test_good_requests_pass() -> None:
    validate(GOOD, LIMITS)
    validate(
        Request(
            model="org/name-1.0:tag",
            messages=(
                Message("system", "be brief"),
                Message("user", "weather in Zürich? ☀️"),
                Message("assistant", "", (ToolCall("1", "weather", '{"city": "Zürich"}'),)),
                Message("tool", "sunny", tool_call_id="1"),
            ),
            sampling=Sampling(1, 0, 1, 0, 0, 1, -2, 2, -1, 0),
            stop=("\n\n",) * 16,
            tools=(Tool("weather", "d", {"type": "object"}),),
            tool_choice="weather",
        ),
        LIMITS,
    )


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"prompt": ""}, "prompt", "must not be empty"),
        ({"prompt": None}, "prompt", "give prompt or messages"),
        ({"messages": (Message("user", "x"),)}, "prompt", "not both"),
        ({"prompt": None, "messages": ()}, "messages", "must not be empty"),
        ({"prompt": None, "messages": (Message("", "x"),)}, "messages[0].role", "is required: one of system"),
        ({"prompt": None, "messages": (Message("user", ""),)}, "messages[0].content", "must not be empty"),
        ({"prompt": None, "messages": (Message("owner", "x"),)}, "messages[0].role", "`owner` is none of system"),
        ({"prompt": None, "messages": (Message("user", "x"),) * 100_000}, "messages", "100000 messages, limit 4096"),
        ({"prompt": None, "messages": (Message("tool", "x"),)}, "messages[0].tool_call_id", "which call"),
        ({"prompt": "x" * 10_000_000}, "prompt", "10000000 bytes, limit 4194304"),
        ({"prompt": "\udc80"}, "prompt", "surrogate"),
        ({"model": "a\nb"}, "model", "`a\\nb` has spaces or control characters"),
        ({"model": "m" * 257}, "model", "257 characters, limit 256"),
        ({"sampling": Sampling(temperature=math.nan)}, "temperature", "nan; must be from 0 to 100"),
        ({"sampling": Sampling(temperature=-1)}, "temperature", "-1; must be from 0 to 100"),
        ({"sampling": Sampling(top_p=0)}, "top_p", "0; must be above 0 to 1"),
        ({"sampling": Sampling(max_tokens=0)}, "max_tokens", "0; must be from 1 to 1048576"),
        ({"sampling": Sampling(top_p=math.inf)}, "top_p", "inf"),
        ({"sampling": Sampling(seed=10**400)}, "seed", "(401 characters); must be from -9223372036854775808"),
        ({"stop": ("x",) * 17}, "stop", "17 stop strings, limit 16"),
        ({"stop": ("x", "")}, "stop[1]", "must not be empty"),
        ({"response_format": ResponseFormat("json_schema", "{")}, "response_format.json_schema", "is not JSON"),
        ({"response_format": ResponseFormat("json_schema", "[]")}, "response_format.json_schema", "JSON object"),
        ({"response_format": ResponseFormat("choice", ())}, "response_format.choice", "must have choices"),
        ({"response_format": ResponseFormat("regex", "")}, "response_format.regex", "must not be empty"),
        ({"tools": (Tool("a b"),)}, "tools[0].name", "1 to 64 letters"),
        ({"tools": (Tool("a"), Tool("a"))}, "tools[1].name", "listed twice"),
        ({"tool_choice": "b", "tools": (Tool("a"),)}, "tool_choice", "`b` is none of"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"extra": {"a": math.inf}}, "extra", "JSON cannot hold"),
        ({"request_id": "é"}, "request_id", "must be ASCII"),
        ({"request_id": "a b"}, "request_id", "spaces"),
        ({"routing": RoutingOptions(user="a\x00")}, "routing.user", "control characters"),
        ({"cache": CacheOptions(max_age_s=-1)}, "cache.max_age", "0 or more"),
        ({"labels": {str(i): "" for i in range(17)}}, "labels", "17 labels, limit 16"),
        ({"labels": {"": "x"}}, "labels", "a key is empty"),
    ],
)
def test_a_bad_field_is_named_with_its_limit(change: dict[str, Any], field: str, words: str) -> None:
    error = refused(replace(GOOD, **change))
    assert error.field == field
    assert words in error.problem


def test_deep_nesting_is_refused() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    assert "nested" in refused(replace(GOOD, extra={"a": deep})).problem


def test_a_structure_of_too_many_values_is_refused() -> None:
    error = refused(replace(GOOD, tools=(Tool("a", "", {"enum": list(range(30_000))}),)))
    assert error.field == "tools[0].parameters"
    assert "20000 values" in error.problem


def test_every_sampling_field_has_a_range() -> None:
    assert list(SAMPLING_RANGES) == [field.name for field in fields(Sampling)]


def test_a_dialect_sees_its_own_names() -> None:
    error = refused(replace(GOOD, sampling=Sampling(max_tokens=0)), max_tokens="max_new_tokens")
    assert error.field == "max_new_tokens"
    assert "max_new_tokens: 0; must be" in error.message
    indexed = refused(replace(GOOD, stop=("",)), stop="stops")
    assert indexed.field == "stops[0]"


@pytest.mark.parametrize(
    "request_",
    [
        Request(prompt="x", model="a secret wish"),
        Request(messages=(Message("a secret wish", "x"),)),
        Request(prompt="x", tools=(Tool("a secret wish", "", {}),)),
        Request(prompt="x", tool_choice="a secret wish"),
        Request(messages=(Message("assistant", "", (ToolCall("1", "a secret wish", "{}"),)),)),
    ],
)
def test_what_stands_in_the_wrong_place_is_told_to_the_caller_alone(request_: Request) -> None:
    error = refused(request_, messages="turns")
    assert "`a secret wish`" in error.message
    assert "secret" not in error.own_message


@pytest.mark.parametrize(
    ("text", "may"), [("", True), ("org/name-1.0:tag", True), ("a b", False), ("a\n", False), ("x" * 257, False)]
)
def test_what_may_name_a_model(text: str, may: bool) -> None:
    assert is_model_name(text) is may
