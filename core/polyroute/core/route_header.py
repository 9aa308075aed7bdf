"""A route as the value of an HTTP header, by which one Polyroute tells another how it routed a call."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any, Final

import orjson
from msgspec.structs import replace

from polyroute.core.event import Attempt, CacheResult, Route

ROUTE_HEADER: Final = "X-Polyroute-Route"
MAX_BYTES: Final = 6_000
"""Longest value that is written; most servers and proxies take headers of 8 KiB at most."""
MAX_DEPTH: Final = 8
"""Most routes within each other, the outermost included."""
MAX_ITEMS: Final = 64
"""Most attempts or reasons that are read."""

_TEXTS = ("requested", "model", "version", "deployment", "replica", "variant", "trace_id", "sticky_by", "cache_key")
_NUMBERS = ("hash_point", "probability", "cache_age_s")
_NO_NUMBERS = (None,) * len(_NUMBERS)
_ATTEMPT_TEXTS = ("deployment", "replica", "variant", "reason", "message")
_CACHE = {result: result.name for result in CacheResult}
_SHORT = 40
_texts, _numbers, _attempt_texts = attrgetter(*_TEXTS), attrgetter(*_NUMBERS), attrgetter(*_ATTEMPT_TEXTS)
_encode = json.JSONEncoder(separators=(",", ":")).encode


def route_to_header(route: Route) -> str:
    """`route` as ASCII JSON of at most `MAX_BYTES`, empty fields left out.

    A longer one loses its reasons, then what stands upstream, then its attempts, and at last the ends of its names.
    """
    text = _written(_plain(route, MAX_DEPTH))
    if len(text) <= MAX_BYTES:
        return text
    shorter = (_written(_plain(less, MAX_DEPTH)) for less in _ever_shorter(route))
    return next((text for text in shorter if len(text) <= MAX_BYTES), "{}")


def route_from_header(text: str) -> Route | None:
    """The route that `route_to_header` wrote; None where `text` is no such thing. Keys it does not know are ignored."""
    try:
        return _route(orjson.loads(text), MAX_DEPTH)
    except ValueError:  # orjson's JSONDecodeError is one
        return None


def _written(plain: Mapping[str, Any]) -> str:
    try:
        text = orjson.dumps(plain).decode()  # JSON escapes what is no character to be shown, but for the last of ASCII
    except orjson.JSONEncodeError:  # half a surrogate pair
        text = "\x7f"
    if text.isascii() and "\x7f" not in text:
        return text
    return _encode(plain).replace("\x7f", "\\u007f")


def _ever_shorter(route: Route) -> Iterator[Route]:
    route = _without_reasons(route)
    yield route
    route = replace(route, upstream=None)
    yield route
    route = replace(route, attempts=())
    yield route
    short = {name: getattr(route, name)[:_SHORT] for name in _TEXTS}
    yield replace(route, **{**short, "cache_key": ""})  # the beginning of a key is none


def _without_reasons(route: Route) -> Route:
    """`route` and those upstream of it with no reasons; what lies too deep to be written is cut off."""
    chain = [route]
    while chain[-1].upstream is not None and len(chain) < MAX_DEPTH:
        chain.append(chain[-1].upstream)
    upstream: Route | None = None
    for link in reversed(chain):
        upstream = replace(link, reasons=(), upstream=upstream)
    return upstream or route


def _plain(route: Route, depth: int) -> dict[str, Any]:
    plain: dict[str, Any] = {name: value for name, value in zip(_TEXTS, _texts(route), strict=True) if value}
    numbers = _numbers(route)
    if numbers != _NO_NUMBERS:
        given = zip(_NUMBERS, numbers, strict=True)
        plain |= {name: value for name, value in given if value is not None and math.isfinite(value)}
    if route.cache is not CacheResult.UNSPECIFIED:
        plain["cache"] = _CACHE[route.cache]
    if route.attempts:
        plain["attempts"] = [_plain_attempt(attempt) for attempt in route.attempts]
    if route.reasons:
        plain["reasons"] = list(route.reasons)
    if route.upstream is not None and depth > 1:
        plain["upstream"] = _plain(route.upstream, depth - 1)
    return plain


def _plain_attempt(attempt: Attempt) -> dict[str, Any]:
    given = zip(_ATTEMPT_TEXTS, _attempt_texts(attempt), strict=True)
    plain: dict[str, Any] = {name: value for name, value in given if value}
    if attempt.duration_s and math.isfinite(attempt.duration_s):
        plain["duration_s"] = round(attempt.duration_s, 6)
    return plain


def _route(plain: Any, depth: int) -> Route:
    if not isinstance(plain, dict) or depth == 0:
        raise ValueError("no route, or too many within each other")
    upstream = plain.get("upstream")
    cache = _text(plain, "cache")
    words: dict[str, Any] = {name: _text(plain, name) for name in _TEXTS}
    numbers: dict[str, Any] = {name: _number(plain[name]) for name in _NUMBERS if plain.get(name) is not None}
    return Route(
        **words,
        **numbers,
        cache=CacheResult[cache] if cache in CacheResult.__members__ else CacheResult.UNSPECIFIED,
        attempts=tuple(_attempt(item) for item in _items(plain, "attempts")),
        reasons=tuple(_is_text(item) for item in _items(plain, "reasons")),
        upstream=None if upstream is None else _route(upstream, depth - 1),
    )


def _attempt(plain: Any) -> Attempt:
    if not isinstance(plain, dict):
        raise ValueError("no attempt")
    return Attempt(
        **{name: _text(plain, name) for name in _ATTEMPT_TEXTS}, duration_s=_number(plain.get("duration_s", 0))
    )


def _items(plain: Mapping[str, Any], name: str) -> list[Any]:
    items = plain.get(name, [])
    if not isinstance(items, list) or len(items) > MAX_ITEMS:
        raise ValueError(f"{name} is no list, or too long")
    return items


def _text(plain: Mapping[str, Any], name: str) -> str:
    return _is_text(plain.get(name, ""))


def _is_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    return float(value)
