"""A route as the value of an HTTP header, by which one Polyroute tells another how it routed a call."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
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
_ATTEMPT_TEXTS = ("deployment", "replica", "variant", "reason", "message")
_CACHE = {result: "" if result is CacheResult.UNSPECIFIED else result.name for result in CacheResult}
_SHORT = 40
_encode: Final = msgspec.json.Encoder().encode
_encode_in_ascii: Final = json.JSONEncoder(separators=(",", ":")).encode


class _ToldAttempt(msgspec.Struct, omit_defaults=True, gc=False):
    """As it is written; so is the route below."""

    deployment: str = ""
    replica: str = ""
    variant: str = ""
    reason: str = ""
    message: str = ""
    duration_s: float | None = None
    """None stands for 0: what is left out is known by its identity, which an equal float does not share."""


class _Told(msgspec.Struct, omit_defaults=True, gc=False):
    requested: str = ""
    model: str = ""
    version: str = ""
    deployment: str = ""
    replica: str = ""
    variant: str = ""
    trace_id: str = ""
    sticky_by: str = ""
    cache_key: str = ""
    hash_point: float | None = None
    probability: float | None = None
    cache_age_s: float | None = None
    cache: str = ""
    attempts: tuple[_ToldAttempt, ...] = ()
    reasons: tuple[str, ...] = ()
    upstream: _Told | None = None


def route_to_header(route: Route) -> str:
    """`route` as ASCII JSON of at most `MAX_BYTES`, empty fields left out.

    A longer one loses its reasons, then what stands upstream, then its attempts, and at last the ends of its names.
    """
    text = _written(route)
    if len(text) <= MAX_BYTES:
        return text
    shorter = (_written(less) for less in _ever_shorter(route))
    return next((text for text in shorter if len(text) <= MAX_BYTES), "{}")


def route_from_header(text: str) -> Route | None:
    """The route that `route_to_header` wrote; None where `text` is no such thing. Keys it does not know are ignored."""
    try:
        return _route(orjson.loads(text), MAX_DEPTH)
    except ValueError:  # orjson's JSONDecodeError is one
        return None


def _written(route: Route) -> str:
    told = _told(route, MAX_DEPTH)
    try:
        text = _encode(told).decode()  # JSON escapes what is no character to be shown, but for the last of ASCII
    except UnicodeEncodeError:  # half a surrogate pair
        text = "\x7f"
    if text.isascii() and "\x7f" not in text:
        return text
    return _encode_in_ascii(msgspec.to_builtins(told)).replace("\x7f", "\\u007f")


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


def _told(route: Route, depth: int) -> _Told:
    return _Told(  # sixteen arguments by name would be put into a map first, which takes most of the time
        route.requested,
        route.model,
        version=route.version,
        deployment=route.deployment,
        replica=route.replica,
        variant=route.variant,
        trace_id=route.trace_id,
        sticky_by=route.sticky_by,
        cache_key=route.cache_key,
        hash_point=_finite(route.hash_point),
        probability=_finite(route.probability),
        cache_age_s=_finite(route.cache_age_s),
        cache=_CACHE[route.cache],
        attempts=tuple([_told_attempt(attempt) for attempt in route.attempts]),
        reasons=route.reasons,
        upstream=None if route.upstream is None or depth == 1 else _told(route.upstream, depth - 1),
    )


def _told_attempt(attempt: Attempt) -> _ToldAttempt:
    took_s = attempt.duration_s
    return _ToldAttempt(
        deployment=attempt.deployment,
        replica=attempt.replica,
        variant=attempt.variant,
        reason=attempt.reason,
        message=attempt.message,
        duration_s=round(took_s, 6) if took_s and math.isfinite(took_s) else None,
    )


def _finite(number: float | None) -> float | None:
    return number if number is None or math.isfinite(number) else None


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
