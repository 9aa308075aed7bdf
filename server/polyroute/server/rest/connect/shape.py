"""Finds what is wrong with the JSON of a message, as one field's path and one sentence.

protobuf's own parser is lax about lists and objects, and its messages seldom say where. What passes here it may still
refuse: the text of a duration, a number out of range.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from polyroute.core.errors import InvalidArgument, clip

_OWN_JSON: Final = "google.protobuf."
"""Messages of this package have a JSON of their own: a duration is a string, a struct any object."""

_WHOLE: Final = "a whole number"
_Fits = Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    if isinstance(value, str):  # as 64 bits are written
        return value.removeprefix("-").isdecimal() and len(value) <= 20
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
    return isinstance(value, int | float | str)


_SCALARS: Final[dict[int, tuple[str, _Fits]]] = {
    FieldDescriptor.CPPTYPE_STRING: ("a string", lambda value: isinstance(value, str)),
    FieldDescriptor.CPPTYPE_BOOL: ("true or false", lambda value: isinstance(value, bool)),
    FieldDescriptor.CPPTYPE_INT32: (_WHOLE, _is_whole),
    FieldDescriptor.CPPTYPE_INT64: (_WHOLE, _is_whole),
    FieldDescriptor.CPPTYPE_UINT32: (_WHOLE, _is_whole),
    FieldDescriptor.CPPTYPE_UINT64: (_WHOLE, _is_whole),
    FieldDescriptor.CPPTYPE_FLOAT: ("a number", _is_number),
    FieldDescriptor.CPPTYPE_DOUBLE: ("a number", _is_number),
}
"""What a value of each type is in JSON."""


def check_shape(tree: dict[str, Any], shape: Descriptor, path: str = "") -> None:
    """Raises `InvalidArgument` for the first thing in `tree` that has no place in a message of that `shape`.

    Fields go by their name in the .proto or by its camelCase; null is the same as absent.
    """
    chosen: dict[str, str] = {}
    for key, value in tree.items():
        field = shape.fields_by_camelcase_name.get(key) or shape.fields_by_name.get(key)
        if field is None:
            raise InvalidArgument(_within(path, clip(key, 80)), _no_field(key, shape))
        if value is None:
            continue
        once = field.containing_oneof.name if field.containing_oneof is not None else field.name
        if once in chosen:
            raise InvalidArgument(_within(path, field.name), f"stands beside `{chosen[once]}`; give one of them")
        chosen[once] = field.name
        _check_field(value, field, _within(path, field.name))


def _check_field(value: Any, field: FieldDescriptor, path: str) -> None:
    entry = field.message_type if field.message_type is not None and field.message_type.GetOptions().map_entry else None
    if entry is not None:
        for key, item in _object(value, path).items():
            _check_one(item, entry.fields_by_name["value"], f"{path}.{clip(key, 80)}")
    elif field.is_repeated:
        if not isinstance(value, list):
            raise _wrong(path, "a list", value)
        for i, item in enumerate(value):
            _check_one(item, field, f"{path}[{i}]")
    else:
        _check_one(value, field, path)


def _check_one(value: Any, field: FieldDescriptor, path: str) -> None:
    if field.message_type is not None:
        if not field.message_type.full_name.startswith(_OWN_JSON):
            check_shape(_object(value, path), field.message_type, path)
    elif field.enum_type is not None:
        _check_enum(value, field.enum_type, path)
    else:
        wanted, fits = _SCALARS[field.cpp_type]
        if not fits(value) or (isinstance(value, bool) and field.cpp_type != FieldDescriptor.CPPTYPE_BOOL):
            raise _wrong(path, wanted, value)


def _check_enum(value: Any, values: EnumDescriptor, path: str) -> None:
    known = value in values.values_by_name if isinstance(value, str) else type(value) is int
    if not known:
        raise _wrong(path, f"one of {', '.join(values.values_by_name)}", value)


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, "an object", value)
    return value


def _no_field(key: str, shape: Descriptor) -> str:
    names = [*shape.fields_by_name, *shape.fields_by_camelcase_name]
    near = difflib.get_close_matches(key[:80], names, 1, 0.75)
    return f"is no field of {shape.full_name}" + (f"; did you mean `{near[0]}`?" if near else "")


def _within(path: str, name: str) -> str:
    return clip(f"{path}.{name}" if path else name, 300)


def _wrong(path: str, wanted: str, value: Any) -> InvalidArgument:
    shown = f"`{clip(value, 80)}`" if isinstance(value, str) else ""
    return InvalidArgument(path, f"must be {wanted}, not {shown or _kind(value)}", quoted=shown)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return clip(str(value), 80)
    return "a list" if isinstance(value, list) else "null" if value is None else "an object"
