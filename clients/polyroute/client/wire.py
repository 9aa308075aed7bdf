"""Reads protobuf messages into the client's dataclasses, field by field of the same name."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")
_Reader = Callable[[Any], Any]


def read(cls: type[T], message: Message) -> T:
    """`message` as a `cls`: each field from the protobuf field of its name.

    A `Duration` is read into seconds (field `queue_s` from `queue`), a `Timestamp` into an aware UTC datetime, an enum
    value into the `StrEnum` word (`unspecified` where this client does not know it), repeated fields into tuples. What
    is unset becomes None where the type allows it. Another name on the wire stands in the field's metadata, as `wire`.
    """
    readers = _readers(cls, message.DESCRIPTOR)  # type: ignore[arg-type]  # classes are hashable, whatever T is
    return cls(**{name: reader(message) for name, reader in readers})


def wire_names(cls: Any, message: Any) -> dict[str, str]:
    """The field of the descriptor `message` that each field of the dataclass `cls` is read from."""
    known = message.fields_by_name
    return {
        field.name: field.metadata.get("wire") or (field.name if field.name in known else field.name.removesuffix("_s"))
        for field in fields(cls)
    }


@cache
def _readers(cls: Any, message: Any) -> tuple[tuple[str, _Reader], ...]:
    hints = get_type_hints(cls)
    known = message.fields_by_name
    return tuple((name, _field(hints[name], known[wire])) for name, wire in wire_names(cls, message).items())


def _field(hint: Any, field: Any) -> _Reader:
    name = field.name
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = [arg for arg in get_args(hint) if arg is not type(None)]
        convert = _value(inner, field)
        return lambda message: convert(getattr(message, name)) if message.HasField(name) else None
    if get_origin(hint) is tuple:
        item = _value(get_args(hint)[0], field)
        return lambda message: tuple(item(value) for value in getattr(message, name))
    if get_origin(hint) in (dict, Mapping) and field.message_type.full_name != Struct.DESCRIPTOR.full_name:
        return lambda message: dict(getattr(message, name))
    convert = _value(hint, field)
    return lambda message: convert(getattr(message, name))


def _value(hint: Any, field: Any) -> _Reader:
    if field.enum_type is not None:
        return _enum(hint, field.enum_type)
    if field.message_type is None:
        return lambda value: value
    kind = field.message_type.full_name
    if kind == Duration.DESCRIPTOR.full_name:
        return lambda value: value.seconds + value.nanos / 1e9
    if kind == Timestamp.DESCRIPTOR.full_name:
        return _datetime
    if kind == Struct.DESCRIPTOR.full_name:
        return lambda value: MessageToDict(value)
    return lambda value: read(hint, value)


def _datetime(value: Timestamp) -> datetime | None:
    try:
        return value.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):  # beyond what a datetime can say: not worth losing an answer for
        return None


def _enum(cls: type[StrEnum], descriptor: Any) -> _Reader:
    known = {word.value: word for word in cls}
    words = {value.number: known.get(enum_word(descriptor, value.name)) for value in descriptor.values}
    unspecified = cls("unspecified")
    return lambda number: words.get(number) or unspecified


def enum_word(descriptor: Any, name: str) -> str:
    """The word of a protobuf enum value: `CACHE_RESULT_HIT` of `CacheResult` is `hit`."""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", descriptor.name).upper() + "_"
    return name.removeprefix(prefix).lower()


def enum_number(descriptor: Any, word: StrEnum) -> int:
    """The protobuf number of an enum word."""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", descriptor.name).upper() + "_"
    return int(descriptor.values_by_name[prefix + word.upper()].number)
