"""The headers that tell how a call was routed."""

from __future__ import annotations

from collections.abc import Iterator

from polyroute.core.event import CacheResult, Route
from polyroute.core.route_header import ROUTE_HEADER, route_to_header

MAX_HEADER_CHARS = 512


def ascii_header(text: str, limit: int = MAX_HEADER_CHARS) -> str:
    """`text` as printable ASCII, everything else escaped, so that no value can end its header or begin another."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def route_headers(route: Route) -> dict[str, str]:
    """`X-Polyroute-*` of an answer; a fact that is not known has no header."""
    headers = {f"X-Polyroute-{name}": ascii_header(value) for name, value in _facts(route) if value}
    headers[ROUTE_HEADER] = route_to_header(route)
    return headers


def _facts(route: Route) -> Iterator[tuple[str, str]]:
    yield "Model", route.model
    yield "Version", route.version
    yield "Deployment", route.deployment
    yield "Replica", route.replica
    yield "Variant", route.variant
    yield "Cache", "" if route.cache is CacheResult.UNSPECIFIED else route.cache.name.lower()
    yield "Cache-Key", route.cache_key
    yield "Attempts", str(len(route.attempts)) if route.attempts else ""
    yield "Trace-Id", route.trace_id
    yield "Reasons", "; ".join(route.reasons)
