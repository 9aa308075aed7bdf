"""Reads a JSON body into a pydantic model; whatever is wrong becomes an `InvalidArgument` that names the place."""

from __future__ import annotations

import asyncio
import json
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from aiohttp import ClientError, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ConfigDict, ValidationError

from polyroute.core.errors import InvalidArgument, clip
from polyroute.server.rest.json_problems import first_problem

MAX_BODY_BYTES = 64 * 1024 * 1024
READ_LIMIT_S = 120.0
MAX_DEPTH = 64
LARGE = 256 * 1024
"""A body of more bytes is read in a thread."""
_JSON: Final = "application/json"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

B = TypeVar("B", bound="Body")


class Body(BaseModel):
    """An object of a request's JSON: frozen, no type is guessed, and every unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


async def read_body(request: web.Request, shape: type[B], longest: Mapping[str, int] | None = None) -> B:
    """The request's body as a `shape`; `longest` bounds top-level lists before anything looks into them."""
    return await parsed(await read_json(request), shape, longest)


async def read_json(request: web.Request) -> bytes:
    """The request's body, which says that it is JSON; raises `InvalidArgument`."""
    if request.headers.get(hdrs.CONTENT_TYPE) != _JSON:
        _check_type(request)
    return await read_raw(request)


async def parsed(raw: bytes, shape: type[B], longest: Mapping[str, int] | None = None) -> B:
    """JSON text as a `shape`, read in a thread where it is long; raises `InvalidArgument`."""
    if len(raw) > LARGE:
        return await asyncio.to_thread(parse_body, raw, shape, longest)
    return parse_body(raw, shape, longest)


def parse_body(raw: bytes, shape: type[B], longest: Mapping[str, int] | None = None) -> B:
    """JSON text as a `shape`; raises `InvalidArgument`."""
    tree = parse_json(raw)
    if not isinstance(tree, dict):
        raise InvalidArgument("", f"the body must be a JSON object, not {_kind(tree)}")
    for field, limit in (longest or {}).items():
        items = tree.get(field)
        if isinstance(items, list) and len(items) > limit:
            raise InvalidArgument(field, f"{len(items)} {field}, limit {limit}")
    try:
        return shape.model_validate(tree)
    except ValidationError as error:
        raise first_problem(error, tree, shape) from None


def parse_json(raw: bytes) -> Any:
    """A JSON value (RFC 8259), where a key given twice, a number that is not finite and half a surrogate are errors."""
    if not raw.strip():
        raise InvalidArgument("", "the body is empty; send a JSON object")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument("", f"the body is not UTF-8: byte {error.start} is wrong") from None
    try:
        try:
            tree, doubtful = _STRICT.decode(text), False
        except _NotFinite:  # to be told with its place
            tree, doubtful = _LENIENT.decode(text), True
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidArgument("", f"the body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise InvalidArgument("", f"the body is nested more than {MAX_DEPTH} deep") from None
    except ValueError:  # an integer of thousands of digits
        raise InvalidArgument("", "the body has a number with too many digits") from None
    if doubtful or _SURROGATE.search(raw) or raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _look_through(tree)
    return tree


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidArgument(clip(key, 80), "is given twice")
            seen.add(key)
    return tree


class _NotFinite(Exception):
    """A number is none that JSON can hold."""


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise _NotFinite
    return value


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
_LENIENT: Final = json.JSONDecoder(object_pairs_hook=_unique)


def _look_through(tree: Any) -> None:
    """Refuses what the JSON parser lets pass but nothing behind it could send on."""
    stack: list[tuple[Any, str, int]] = [(tree, "", 0)]
    while stack:
        value, path, depth = stack.pop()
        if depth >= MAX_DEPTH and isinstance(value, dict | list):
            raise InvalidArgument(clip(path, 200), f"is nested more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            for key, item in value.items():
                inner = f"{path}.{key}" if path else key
                _whole(key, inner)
                stack.append((item, inner, depth + 1))
        elif isinstance(value, list):
            stack.extend((item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value))
        elif isinstance(value, str):
            _whole(value, path)
        elif isinstance(value, float) and not math.isfinite(value):
            raise InvalidArgument(clip(path, 200), f"{value}, which is no JSON number")


def _whole(text: str, path: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(clip(path, 200), "has half a surrogate pair, which no UTF-8 text can hold") from None


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _check_type(request: web.Request) -> None:
    if request.content_type != _JSON:
        shown = clip(request.headers.get(hdrs.CONTENT_TYPE, "none"), 80)
        raise InvalidArgument("Content-Type", f"is {shown}, must be {_JSON}; with curl: -H 'Content-Type: {_JSON}'")
    charset = (request.charset or "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise InvalidArgument("Content-Type", f"charset {clip(charset, 40)}; JSON is UTF-8")


async def read_raw(request: web.Request) -> bytes:
    """The request's body, up to `MAX_BODY_BYTES`; raises `InvalidArgument` where it cannot be had."""
    try:
        if request.content.is_eof():  # it has come with the head, as most do
            raw = request.content.read_nowait()
        elif (request.content_length or 0) > MAX_BODY_BYTES:
            raise InvalidArgument("", f"the body has {request.content_length} bytes, limit {MAX_BODY_BYTES}")
        else:
            async with asyncio.timeout(READ_LIMIT_S):
                raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except TimeoutError:
        raise InvalidArgument("", f"the body did not arrive within {READ_LIMIT_S:g} s") from None
    except (ClientError, HttpProcessingError, zlib.error, web.RequestPayloadError) as error:
        raise InvalidArgument("", f"the body cannot be read: {clip(str(error), 200)}") from None
    if len(raw) > MAX_BODY_BYTES:
        raise _too_large()
    return raw


def _too_large() -> InvalidArgument:
    return InvalidArgument("", f"the body has more than {MAX_BODY_BYTES} bytes, the limit")
