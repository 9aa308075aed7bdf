"""The headers that tell how a call was routed."""

from __future__ import annotations

from operator import attrgetter
from typing import Final

from polyroute.core.event import CacheResult, Route
from polyroute.core.route_header import ROUTE_HEADER, route_to_header

MAX_HEADER_CHARS = 512

_TEXTS: Final = {
    "X-Polyroute-Model": "model",
    "X-Polyroute-Version": "version",
    "X-Polyroute-Deployment": "deployment",
    "X-Polyroute-Replica": "replica",
    "X-Polyroute-Variant": "variant",
    "X-Polyroute-Cache-Key": "cache_key",
    "X-Polyroute-Trace-Id": "trace_id",
}
_texts: Final = attrgetter(*_TEXTS.values())


def ascii_header(text: str, limit: int = MAX_HEADER_CHARS) -> str:
    """`text` as printable ASCII, everything else escaped, so that no value can end its header or begin another."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def route_headers(route: Route) -> dict[str, str]:
    """`X-Polyroute-*` of an answer; a fact that is not known has no header."""
    headers = {name: ascii_header(text) for name, text in zip(_TEXTS, _texts(route), strict=True) if text}
    if route.cache is not CacheResult.UNSPECIFIED:
        headers["X-Polyroute-Cache"] = route.cache.label
    if route.attempts:
        headers["X-Polyroute-Attempts"] = str(len(route.attempts))
    if route.reasons:
        headers["X-Polyroute-Reasons"] = ascii_header("; ".join(route.reasons))
    headers[ROUTE_HEADER] = route_to_header(route)
    return headers
