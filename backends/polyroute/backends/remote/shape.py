"""Takes JSON apart while it checks the types: what is not as expected raises `Malformed`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from polyroute.backends.remote.dialect import Malformed


def parse(data: bytes) -> Mapping[str, Any]:
    """The JSON object that `data` holds."""
    try:
        value = orjson.loads(data)
    except ValueError as error:  # orjson's JSONDecodeError, for what is not UTF-8 too
        raise Malformed("is not JSON") from error
    if not isinstance(value, dict):
        raise Malformed("is no JSON object")
    return value


def text(of: Mapping[str, Any], key: str) -> str:
    """A string; empty where it is absent or null."""
    value = of.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"`{key}` is no string")
    return value


def count(of: Mapping[str, Any], key: str) -> int:
    """A number of things; 0 where it is absent or null."""
    value = of.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise Malformed(f"`{key}` is no count")
    return value


def number(of: Mapping[str, Any], key: str) -> float:
    """A number, which must be there."""
    value = of.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed(f"`{key}` is no number")
    return float(value)


def items(of: Mapping[str, Any], key: str) -> list[Any]:
    """A list; empty where it is absent or null."""
    value = of.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"`{key}` is no list")
    return value


def section(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object; empty where it is absent or null."""
    value = of.get(key)
    return {} if value is None else mapping(value, key)


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    """`value`, which must be an object."""
    if not isinstance(value, dict):
        raise Malformed(f"`{name}` is no object")
    return value


def told_error(body: Any) -> str:
    """What an error body says in words; empty where it has none of the usual forms."""
    if not isinstance(body, dict):
        return ""
    for key in ("error", "message", "detail"):
        value = body.get(key)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, dict) and isinstance(value.get("message"), str):
            return str(value["message"])
    return ""
