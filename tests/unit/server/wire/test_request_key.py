"""Each field of the protocol's request, changed alone, changes the key of its answer: by the descriptor, not a list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from polyroute.routing.cache.key import EXCLUDED, canonical
from polyroute.server.wire.request import request_from_wire
from polyroute.v1 import inference_pb2 as pb

M = TypeVar("M", bound=Message)

MESSAGES = pb.MessageList(
    messages=[
        pb.Message(role="user", content="hi"),
        pb.Message(role="assistant", tool_calls=[pb.ToolCall(id="1", name="f", arguments="{}")]),
    ]
)
TOOL = pb.Tool(name="f", description="d")
TOOL.parameters.update({"type": "object"})
CHOICE = pb.ResponseFormat(choice=pb.ChoiceList(choices=["a", "b"]))
BASES = {
    "prompt": pb.GenerateRequest(prompt="hi"),
    "messages": pb.GenerateRequest(messages=MESSAGES, tools=[TOOL]),
    "choice": pb.GenerateRequest(prompt="hi", response_format=CHOICE, temperature=1, stop=["x"]),
}


def key(wire: pb.GenerateRequest) -> bytes:
    return canonical("m", "v", "f", request_from_wire(wire))


def copy(message: M) -> M:
    other = type(message)()
    other.CopyFrom(message)
    return other


def changed_scalar(field: FieldDescriptor, value: Any) -> Any:
    """Another value of the field's type."""
    if field.enum_type is not None:
        return next(each.number for each in field.enum_type.values if each.number != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (str, bytes)):
        return value + ("x" if isinstance(value, str) else b"x")
    return value + 1


def every_change(message: M) -> Iterator[tuple[str, M]]:
    """The message with one place changed, for each place of it and of those in it: where, and the whole."""
    for field in message.DESCRIPTOR.fields:
        name, held = field.name, getattr(message, field.name)
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            yield from ((name, other) for other in other_values(message, field, held))
        elif field.is_repeated:
            for i, each in enumerate(held):
                for where, part in every_change(each):
                    other = copy(message)
                    getattr(other, name)[i].CopyFrom(part)
                    yield f"{name}[{i}].{where}", other
            longer = copy(message)
            getattr(longer, name).add()
            yield name, longer
        else:
            parts = every_change(held) if not isinstance(held, Struct | Duration) else [("", other_known(held))]
            for where, part in parts:
                other = copy(message)
                getattr(other, name).CopyFrom(part)
                yield f"{name}.{where}", other


def other_values(message: M, field: FieldDescriptor, held: Any) -> Iterator[M]:
    other = copy(message)
    if field.message_type is not None:
        getattr(other, field.name)["other"] = "y"
    elif field.is_repeated:
        getattr(other, field.name).append("x")
    else:
        setattr(other, field.name, changed_scalar(field, held))
    yield other
    if field.has_presence and not isinstance(held, str) and not message.HasField(field.name):
        said = copy(message)
        setattr(said, field.name, held)  # the value that it seems to have anyway
        yield said


def other_known(held: Struct | Duration) -> Struct | Duration:
    other = copy(held)
    if isinstance(other, Struct):
        other.update({"other": 1})
    else:
        other.FromSeconds(held.seconds + 1)
    return other


@pytest.mark.parametrize("base", BASES)
def test_a_field_that_is_changed_alone_changes_the_key_unless_it_is_named_as_not_counting(base: str) -> None:
    wire = BASES[base]
    assert {"model", "request_id", "routing", "cache", "labels"} == EXCLUDED
    seen, paths = {key(wire): "nothing"}, set()
    for path, other in every_change(wire):
        top = path.split(".")[0].split("[")[0]
        paths.add(top)
        if top in EXCLUDED:
            assert key(other) == key(wire), path
        else:
            assert key(other) not in seen, f"{path} is the same as {seen[key(other)]}"
            seen[key(other)] = path
    assert paths == {field.name for field in pb.GenerateRequest.DESCRIPTOR.fields}
    assert len(seen) > len(pb.GenerateRequest.DESCRIPTOR.fields)
