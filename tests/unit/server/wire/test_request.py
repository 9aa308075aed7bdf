"""Every field of a wire request reaches core: one that is added and not mapped makes these tests fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from polyroute.core.errors import InvalidArgument
from polyroute.core.request import CacheMode, ResponseFormat
from polyroute.server.wire.request import request_from_count, request_from_wire
from polyroute.server.wire.values import MAX_STRUCT_BYTES
from polyroute.v1 import inference_pb2 as pb

SAMPLES: dict[int, Any] = {
    FieldDescriptor.CPPTYPE_STRING: "x",
    FieldDescriptor.CPPTYPE_INT32: 3,
    FieldDescriptor.CPPTYPE_INT64: 3,
    FieldDescriptor.CPPTYPE_DOUBLE: 0.5,
    FieldDescriptor.CPPTYPE_BOOL: True,
    FieldDescriptor.CPPTYPE_ENUM: 1,
}
Setter = Callable[[Any], None]


def settings_of(descriptor: Descriptor, path: str = "") -> Iterator[tuple[str, Setter]]:
    """Path and setter of every field below a message: each setter sets that field alone, and what it stands in."""
    for field in descriptor.fields:
        here = f"{path}.{field.name}" if path else field.name
        yield from _settings_of_field(field, here)


def _settings_of_field(field: Any, here: str) -> Iterator[tuple[str, Setter]]:
    name = field.name
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        yield here, lambda message: getattr(message, name).update({"key": "value"})
    elif kind is not None and kind.full_name == "google.protobuf.Struct":
        yield here, lambda message: getattr(message, name).update({"key": [1, None, {"deep": True}]})
    elif kind is not None and kind.full_name == "google.protobuf.Duration":
        yield here, lambda message: getattr(message, name).CopyFrom(Duration(seconds=2, nanos=500_000_000))
    elif kind is not None and field.is_repeated:
        yield f"{here}[]", lambda message: getattr(message, name).add()
        for inner, setter in settings_of(kind, f"{here}[]"):
            yield inner, lambda message, setter=setter: setter(getattr(message, name).add())
    elif kind is not None:
        for inner, setter in settings_of(kind, here):
            yield inner, lambda message, setter=setter: setter(getattr(message, name))
    elif field.is_repeated:
        yield here, lambda message: getattr(message, name).append(SAMPLES[field.cpp_type])
    else:
        yield here, lambda message: setattr(message, name, SAMPLES[field.cpp_type])


GENERATE = dict(settings_of(pb.GenerateRequest.DESCRIPTOR))
COUNT = dict(settings_of(pb.CountTokensRequest.DESCRIPTOR))


def differs(message: Message, plain: Message, translate: Callable[[Any], object]) -> bool:
    return translate(message) != translate(plain)


@pytest.mark.parametrize("path", GENERATE)
def test_every_field_of_a_generate_request_is_mapped(path: str) -> None:
    message = pb.GenerateRequest()
    GENERATE[path](message)
    parent = pb.GenerateRequest()
    if "[]." in path:  # compared with an item that has no field set
        GENERATE[path[: path.rindex("[].") + 2]](parent)
    assert differs(message, parent, request_from_wire), f"{path} makes no difference: is it mapped?"


@pytest.mark.parametrize("path", COUNT)
def test_every_field_of_a_count_request_is_mapped(path: str) -> None:
    message = pb.CountTokensRequest()
    COUNT[path](message)
    parent = pb.CountTokensRequest()
    if "[]." in path:
        COUNT[path[: path.rindex("[].") + 2]](parent)
    assert differs(message, parent, request_from_count), f"{path} makes no difference: is it mapped?"


def test_the_walk_sees_the_fields_there_are() -> None:
    assert {
        "model",
        "prompt",
        "messages.messages[].tool_calls[].arguments",
        "seed",
        "response_format.choice.choices",
        "tools[].parameters",
        "extra",
        "routing.no_fallback",
        "cache.max_age",
        "labels",
    } <= set(GENERATE)


@pytest.mark.parametrize("name", ["max_tokens", "temperature", "top_k", "seed", "logprobs", "presence_penalty"])
def test_zero_is_not_unset(name: str) -> None:
    zero = pb.GenerateRequest(prompt="x")
    setattr(zero, name, 0)
    assert getattr(request_from_wire(zero).sampling, name) == 0
    assert getattr(request_from_wire(pb.GenerateRequest(prompt="x")).sampling, name) is None


def test_an_empty_input_is_told_from_none() -> None:
    assert request_from_wire(pb.GenerateRequest(prompt="")).prompt == ""
    assert request_from_wire(pb.GenerateRequest()).prompt is None
    assert request_from_wire(pb.GenerateRequest(messages=pb.MessageList())).messages == ()
    assert request_from_wire(pb.GenerateRequest()).messages is None


def test_whole_numbers_of_a_structure_become_integers_again() -> None:
    extra = Struct()
    extra.update({"n": 5, "f": 0.5, "big": 2.0**60, "list": [1, "a", None, False], "deep": {"x": 2}})
    plain = request_from_wire(pb.GenerateRequest(extra=extra)).extra
    assert plain == {"n": 5, "f": 0.5, "big": 2.0**60, "list": [1, "a", None, False], "deep": {"x": 2}}
    assert isinstance(plain["n"], int)
    assert isinstance(plain["big"], float)
    assert isinstance(plain["deep"]["x"], int)  # type: ignore[index, call-overload]


def test_formats_and_cache_modes() -> None:
    choice = pb.ResponseFormat(choice=pb.ChoiceList(choices=["a", "b"]))
    assert request_from_wire(pb.GenerateRequest(response_format=choice)).response_format == ResponseFormat(
        "choice", ("a", "b")
    )
    for mode in CacheMode:
        number = pb.CacheMode.Value(f"CACHE_MODE_{mode.name}")
        assert request_from_wire(pb.GenerateRequest(cache=pb.CacheOptions(mode=number))).cache.mode is mode
    assert len(CacheMode) == len(pb.CacheMode.keys())
    with pytest.raises(InvalidArgument, match=r"cache\.mode: 77"):
        request_from_wire(pb.GenerateRequest(cache=pb.CacheOptions(mode=77)))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="response_format"):
        request_from_wire(pb.GenerateRequest(response_format=pb.ResponseFormat()))


def test_structures_too_large_to_be_walked_are_refused_before_they_are() -> None:
    huge = pb.GenerateRequest(prompt="x")
    huge.extra.update({"text": "x" * (MAX_STRUCT_BYTES + 1)})
    with pytest.raises(InvalidArgument, match=r"extra: \d+ bytes, limit 1048576"):
        request_from_wire(huge)
    many = pb.GenerateRequest(prompt="x", tools=[pb.Tool(name=f"t{i}") for i in range(129)])
    with pytest.raises(InvalidArgument, match="tools: 129 tools, limit 128"):
        request_from_wire(many)
