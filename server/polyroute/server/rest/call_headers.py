"""Makes a `Call` of a request and of the headers it came with."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from functools import cache

from aiohttp import web
from msgspec.structs import replace
from multidict import istr

from polyroute.core.call import Call, Entrance, Worked, new_request_id
from polyroute.core.config import LimitsConfig
from polyroute.core.errors import InvalidArgument, clip
from polyroute.core.request import CacheMode, CacheOptions, Request, RoutingOptions
from polyroute.core.trace import NO_TRACE, Trace
from polyroute.core.validate import validate
from polyroute.server.rest.frame import FRAME
from polyroute.server.sticky import headers_of
from polyroute.server.trace import trace_of

MAX_TIMEOUT_MS = 24 * 3600 * 1000

ROUTING_HEADERS = {
    istr("X-Polyroute-User"): "user",
    istr("X-Polyroute-Session"): "session",
    istr("X-Polyroute-Affinity-Key"): "affinity_key",
    istr("X-Polyroute-Variant"): "variant",
    istr("X-Polyroute-No-Fallback"): "no_fallback",
    istr("X-Polyroute-No-Shadow"): "no_shadow",
}
"""Header: field of `RoutingOptions`. What the body says wins over a header."""

CACHE_HEADER = istr("X-Polyroute-Cache")
MAX_AGE_HEADER = istr("X-Polyroute-Cache-Max-Age")
PACE_HEADER = istr("X-Polyroute-Cache-Original-Pace")
TIMEOUT_HEADER = istr("X-Polyroute-Timeout-Ms")
ID_HEADER = istr("X-Request-ID")
TRACE_HEADER = istr("traceparent")

_ALL = (*ROUTING_HEADERS, CACHE_HEADER, MAX_AGE_HEADER, PACE_HEADER, TIMEOUT_HEADER, ID_HEADER, TRACE_HEADER)

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_YES_NO = {"true": True, "1": True, "false": False, "0": False}


def says_something(request: web.Request) -> bool:
    """Whether there is any of the headers that a call is made of; those that routes are keyed on are not among them."""
    return not request.headers.keys().isdisjoint(_ALL)


def request_id(request: web.Request) -> str:
    """The caller's `X-Request-ID` where it is printable ASCII of at most 128 characters, else a new one."""
    given = request.headers.get(ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else new_request_id()


def call(
    http: web.Request, asked: Request, carried: Collection[str], worked: Worked | None = None, *, streams: bool = False
) -> Call:
    """The call that `asked` and the headers make together; raises `InvalidArgument` that names the header.

    `carried` names, in small letters, the headers that the call carries along as they are. `worked` belongs to `asked`.
    `streams`: the answer goes out as it comes.
    """
    frame = http[FRAME]
    frame.model = asked.model
    arrived = time.monotonic()
    request, timeout_s, trace = asked, None, NO_TRACE
    if frame.headed:
        timeout_s, trace = _timeout_s(http), trace_in(http)
        request = _with_headers(http, asked)
    return Call(
        request=request,
        request_id=frame.request_id,
        arrived=arrived,
        deadline=None if timeout_s is None else arrived + timeout_s,
        trace=trace,
        headers=headers_of(http.headers.items(), carried) if carried else {},
        entrance=_streaming(frame.entrance) if streams else frame.entrance,
        worked=Worked(request) if worked is None or request is not asked else worked,
    )


def accept(http: web.Request, made: Call, limits: LimitsConfig, *, checked: bool = False) -> None:
    """The call is to be made, unless `validate` refuses it; raises `InvalidArgument`. `checked`: it does not."""
    if not checked:
        validate(made.request, limits)
    http[FRAME].called = True


def trace_in(http: web.Request) -> Trace:
    """The trace that the request's headers tell."""
    headers = http.headers
    if TRACE_HEADER not in headers:
        return NO_TRACE
    return trace_of((name, value) for name in ("traceparent", "tracestate") for value in headers.getall(name, ()))


def entrance(http: web.Request) -> Entrance:
    """The endpoint that the request came in by."""
    resource = http.match_info.route.resource
    if resource is None:  # no path of ours: there may be any number of those
        return Entrance("http", f"{http.method} {http.path}")
    return _entrance(http.method, resource.canonical)


@cache
def _entrance(method: str, path: str) -> Entrance:
    return Entrance("http", f"{method} {path}")


@cache
def _streaming(entrance: Entrance) -> Entrance:
    return replace(entrance, streams=True)


def _with_headers(http: web.Request, asked: Request) -> Request:
    """The request with what its headers say; `asked` itself where they say nothing."""
    request_id = http.headers.get(ID_HEADER, "") and http[FRAME].request_id
    routing, cached = _routing(http, asked.routing), _cache(http, asked.cache)
    if not request_id and routing is asked.routing and cached is asked.cache:
        return asked
    return replace(asked, request_id=request_id, routing=routing, cache=cached)


def _routing(http: web.Request, asked: RoutingOptions) -> RoutingOptions:
    given: dict[str, str | bool] = {}
    for header, field in ROUTING_HEADERS.items():
        text = http.headers.get(header)
        if text is None or getattr(asked, field):
            continue
        given[field] = _yes_no(header, text) if field.startswith("no_") else text
    return replace(asked, **given) if given else asked


def _yes_no(header: str, text: str) -> bool:
    if text.lower() not in _YES_NO:
        raise _refused(header, text, "is neither true nor false")
    return _YES_NO[text.lower()]


def _cache(http: web.Request, asked: CacheOptions) -> CacheOptions:
    mode, max_age_s = asked.mode, asked.max_age_s
    if (word := http.headers.get(CACHE_HEADER)) is not None and mode is CacheMode.UNSPECIFIED:
        names = {m.name.lower(): m for m in CacheMode if m is not CacheMode.UNSPECIFIED}
        name = word.lower().replace("-", "_")
        if name not in names:
            raise _refused(CACHE_HEADER, word, f"is none of {', '.join(names)}")
        mode = names[name]
    if (text := http.headers.get(MAX_AGE_HEADER)) is not None and max_age_s is None:
        max_age_s = _number(MAX_AGE_HEADER, text, "seconds", float, 0, float("inf"))
    original_pace = asked.original_pace
    if (text := http.headers.get(PACE_HEADER)) is not None and not original_pace:
        original_pace = _yes_no(PACE_HEADER, text)
    made = CacheOptions(mode, max_age_s, original_pace)
    return asked if made == asked else made


def _timeout_s(http: web.Request) -> float | None:
    text = http.headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    return _number(TIMEOUT_HEADER, text, "whole milliseconds", int, 1, MAX_TIMEOUT_MS) / 1000


def _number(header: str, text: str, unit: str, kind: Callable[[str], float], low: float, high: float) -> float:
    try:
        value = kind(text) if len(text) <= 20 and text.isascii() and "_" not in text else None
    except ValueError:
        value = None
    if value is None:
        raise _refused(header, text, f"is no number of {unit}")
    if not low <= value <= high or value == float("inf"):
        bounds = f"must be {low:g} or more" if high == float("inf") else f"must be from {low:g} to {high:.0f}"
        raise InvalidArgument(header, f"{value:g}; {bounds}")
    return value


def _refused(header: str, text: str, problem: str) -> InvalidArgument:
    shown = f"`{clip(text, 80)}`"
    return InvalidArgument(header, f"{shown} {problem}", quoted=shown)
