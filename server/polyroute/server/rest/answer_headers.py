"""The headers that tell how a call was routed, as lines of a head."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from polyroute.core.event import CacheResult, Route
from polyroute.core.route_header import ROUTE_HEADER, route_to_header

MAX_HEADER_CHARS = 512

_KEPT: Final = 512
"""Lines that are kept, for most answers have the same: about 100 KiB of each kind, more only where names are long."""


def ascii_header(text: str, limit: int = MAX_HEADER_CHARS) -> str:
    """`text` as printable ASCII, everything else escaped, so that no value can end its header or begin another."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def route_lines(route: Route) -> str:
    """`X-Polyroute-*` of an answer, each a line with its end; a fact that is not known has no header."""
    cached = "" if route.cache is CacheResult.UNSPECIFIED else _line("Cache", route.cache.label)
    return (
        _where(route.model, route.version, route.deployment, route.replica, route.variant)
        + _line("Cache-Key", route.cache_key)
        + _line("Trace-Id", route.trace_id)
        + cached
        + (f"X-Polyroute-Attempts: {len(route.attempts)}\r\n" if route.attempts else "")
        + _why(route.reasons)
        + f"{ROUTE_HEADER}: {route_to_header(route)}\r\n"
    )


@lru_cache(_KEPT)
def _where(model: str, version: str, deployment: str, replica: str, variant: str) -> str:
    return (
        _line("Model", model)
        + _line("Version", version)
        + _line("Deployment", deployment)
        + _line("Replica", replica)
        + _line("Variant", variant)
    )


@lru_cache(_KEPT)
def _why(reasons: tuple[str, ...]) -> str:
    return _line("Reasons", "; ".join(reasons))


def _line(name: str, text: str) -> str:
    return f"X-Polyroute-{name}: {ascii_header(text)}\r\n" if text else ""
