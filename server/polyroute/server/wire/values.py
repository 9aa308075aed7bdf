"""Small wire values as plain Python: durations, times and JSON structures."""

from __future__ import annotations

import math
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from polyroute.core.errors import InvalidArgument
from polyroute.core.request import Json

_EXACT_INTEGERS: Final = 2.0**53
NANOS: Final = 1_000_000_000
"""Nanoseconds in a second."""
NEARLY_ONE: Final = 0.999_999_999
"""Seconds below this are no whole one, rounded to nanoseconds."""

MAX_STRUCT_BYTES: Final = 1024 * 1024
"""Largest structured field, such as a tool's parameters or `extra`."""


def duration(seconds: float) -> Duration:
    """`seconds` as a wire duration."""
    wire = Duration()
    put_duration(wire, seconds)
    return wire


def put_duration(wire: Duration, seconds: float) -> None:
    """Sets a wire duration to `seconds`; it is there afterwards, zero too."""
    if 0.0 <= seconds < NEARLY_ONE:  # nearly all are
        wire.nanos = round(seconds * NANOS)
        return
    whole, nanos = _split(seconds)
    if whole < 0 and nanos:  # both parts of a wire duration have one sign
        whole, nanos = whole + 1, nanos - NANOS
    wire.seconds, wire.nanos = whole, nanos


def seconds_of(value: Duration) -> float:
    """A wire duration in seconds; out-of-range values come as they are, for validation to refuse."""
    return value.seconds + value.nanos / NANOS


def timestamp(unix_s: float) -> Timestamp:
    """Unix time in seconds as a wire time."""
    wire = Timestamp()
    put_time(wire, unix_s)
    return wire


def put_time(wire: Timestamp, unix_s: float) -> None:
    """Sets a wire time to Unix time in seconds."""
    wire.seconds, wire.nanos = _split(unix_s)


def unix_of(value: Timestamp) -> float:
    """A wire time as Unix time in seconds."""
    return value.seconds + value.nanos / NANOS


def _split(seconds: float) -> tuple[int, int]:
    """Whole seconds, rounded down, and nanoseconds; the fraction first, since a double holds no nanoseconds of now."""
    whole = math.floor(seconds)
    more, nanos = divmod(round((seconds - whole) * NANOS), NANOS)
    return whole + more, nanos


def plain(field: str, struct: Struct) -> dict[str, Json]:
    """The wire structure in `field` as plain JSON; raises `InvalidArgument` where it is too large to be walked.

    A structure knows no integers, only doubles: whole ones become integers again, so that a peer that insists on
    `5` is not sent `5.0`, and that both spellings share a cache key.
    """
    size = struct.ByteSize()
    if size > MAX_STRUCT_BYTES:
        raise InvalidArgument(field, f"{size} bytes, limit {MAX_STRUCT_BYTES}")
    return _mapping(struct)


def _mapping(struct: Struct) -> dict[str, Json]:
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Value) -> Json:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _EXACT_INTEGERS else number
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _mapping(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None
