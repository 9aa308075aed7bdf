"""Says what a pydantic model found wrong with a JSON value, as one field's path and one sentence."""

from __future__ import annotations

import difflib
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from polyroute.core.errors import InvalidArgument, clip

Loc: TypeAlias = tuple[str | int, ...]

_MUST_BE = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "none_required": "null",
}


def first_problem(error: ValidationError, tree: Any, shape: type[BaseModel]) -> InvalidArgument:
    """The first thing wrong with `tree`; of a union's findings, those about the shape that came closest."""
    found = [(_location(e["loc"], tree, e["type"]), e) for e in error.errors(include_url=False, include_context=True)]
    loc = found[0][0]
    loc = max((other for other, _ in found if other[: len(loc)] == loc), key=len)
    errors = [e for other, e in found if other == loc]
    given = errors[0]["input"]
    quoted = _shown(given) if isinstance(given, str) else ""  # a prompt in the place of something else, perhaps
    return InvalidArgument(_path(loc), _sentence(errors, tree, shape, loc), quoted=quoted)


def _location(loc: Loc, tree: Any, kind: str) -> Loc:
    """The part of a pydantic location that is in the JSON: without the names of union members."""
    kept: list[str | int] = []
    here: Any = tree
    for i, part in enumerate(loc):
        last_missing = kind == "missing" and i == len(loc) - 1
        if (isinstance(here, dict) and part in here) or (isinstance(here, list) and isinstance(part, int)):
            here = here[part]  # type: ignore[index]
            kept.append(part)
        elif last_missing:
            kept.append(part)
    return tuple(kept)


def _path(loc: Loc) -> str:
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return clip(path, 200)


def _sentence(errors: list[ErrorDetails], tree: Any, shape: type[BaseModel], loc: Loc) -> str:
    first = errors[0]
    if first["type"] == "missing":
        return "is required"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(loc[-1]), shape.model_fields, 1, 0.75) if len(loc) == 1 else []
        return "is no field of this request" + (f"; did you mean `{near[0]}`?" if near else "")
    allowed = list(dict.fromkeys(text for e in errors if (text := _must_be(e))))
    if "a number" in allowed and "a whole number" in allowed:
        allowed.remove("a whole number")
    if allowed:
        return f"must be {' or '.join(allowed)}, not {_shown(first.get('ctx', {}).get('tag', first['input']))}"
    return first["msg"][:1].lower() + first["msg"][1:]


def _must_be(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        expected = str(error.get("ctx", {}).get("expected", "")).replace("'", "`")
        return {"True": "true", "False": "false"}.get(expected, expected)
    if error["type"] == "union_tag_invalid":
        return "one of " + str(error.get("ctx", {}).get("expected_tags", "")).replace("'", "`")
    return _MUST_BE.get(error["type"], "")


def _shown(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return clip(str(value), 80)
        case str():
            return f"`{clip(value, 80)}`"
        case list():
            return "a list"
        case _:
            return "an object"
