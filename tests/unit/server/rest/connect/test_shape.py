"""What JSON fits a message, and how what does not is named."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from polyroute.core.errors import InvalidArgument
from polyroute.server.rest.connect.messages import from_json
from polyroute.server.rest.connect.shape import check_shape
from polyroute.v1 import admin_pb2, inference_pb2

GENERATE = cast("Descriptor", inference_pb2.GenerateRequest.DESCRIPTOR)
FULL: dict[str, Any] = {
    "model": "m",
    "messages": {"messages": [{"role": "user", "content": "x", "toolCalls": [{"id": "c", "index": 0}]}]},
    "max_tokens": 3,
    "topP": 0.5,
    "temperature": "0.5",
    "seed": "9007199254740993",
    "stop": ["a", "b"],
    "responseFormat": {"choice": {"options": ["a"]}} if "choice" in GENERATE.fields_by_name else {},
    "tools": [{"name": "f", "parameters": {"type": "object", "properties": {"a": [1, None, {"b": True}]}}}],
    "extra": {"anything": {"goes": [1]}},
    "routing": {"noShadow": True, "user": None},
    "cache": {"mode": "CACHE_MODE_BYPASS", "maxAge": "1.5s"},
    "labels": {"a": "b"},
}


def test_all_that_a_request_can_say_fits() -> None:
    check_shape(FULL, GENERATE)


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"labels": []}, "labels", "must be an object, not a list"),
        ({"labels": {"a": 1}}, "labels.a", "must be a string, not 1"),
        ({"stop": "a"}, "stop", "must be a list, not `a`"),
        ({"stop": [None]}, "stop[0]", "must be a string, not null"),
        ({"tools": [{"nam": "f"}]}, "tools[0].nam", "is no field of polyroute.v1.Tool; did you mean `name`?"),
        ({"maxTokens": 1}, "max_tokens", "stands beside `max_tokens`; give one of them"),
        ({"seed": 1.5}, "seed", "must be a whole number, not 1.5"),
        ({"seed": True}, "seed", "must be a whole number, not true"),
        ({"topP": {}}, "top_p", "must be a number, not an object"),
        ({"routing": {"noShadow": "yes"}}, "routing.no_shadow", "must be true or false, not `yes`"),
        ({"cache": {"mode": 1.0}}, "cache.mode", "must be one of CACHE_MODE_UNSPECIFIED"),
    ],
)
def test_what_does_not_is_named(change: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_shape({**FULL, **change}, GENERATE)
    assert refused.value.field == field
    assert refused.value.problem.startswith(problem)


def test_what_the_caller_wrote_is_marked_as_quoted() -> None:
    """It may be a part of a prompt, which no log may have."""
    with pytest.raises(InvalidArgument) as refused:
        check_shape({"max_tokens": "my secret"}, GENERATE)
    assert "my secret" not in refused.value.own_message
    with pytest.raises(InvalidArgument) as refused:
        from_json(b'{"prompt": "x", "cache": {"max_age": "my secret"}}', inference_pb2.GenerateRequest)
    assert "my secret" not in refused.value.own_message


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5)
KEYS = st.sampled_from(["route", "reason", "model", "wait", "grace", "dryRun", "dry_run", "x"])
TREES = st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(KEYS, SCALARS, max_size=2))


@given(TREES)
def test_whatever_comes_is_a_message_or_refused(tree: dict[str, Any]) -> None:
    for shape in (admin_pb2.UnloadModelRequest, admin_pb2.ReloadRequest, admin_pb2.LoadModelRequest):
        try:
            message = from_json(json.dumps(tree).encode(), shape)
        except InvalidArgument:
            continue
        assert from_json(json.dumps(MessageToDict(message)).encode(), shape) == message
