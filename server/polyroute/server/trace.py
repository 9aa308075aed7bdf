"""W3C trace context as callers send it, in gRPC metadata or HTTP headers (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

from collections.abc import Iterable

from polyroute.core.trace import NO_TRACE, Trace, parse


def trace_of(headers: Iterable[tuple[str, str | bytes]]) -> Trace:
    """The trace that a caller's `traceparent` and `tracestate` tell; names are in small letters.

    Of several parents none can be told from the others: then there is none. States are joined.
    """
    parent, parents, state = "", 0, ""
    for name, value in headers:
        if name == "traceparent":
            parent, parents = str(value), parents + 1
        elif name == "tracestate":
            state += "," + str(value) if state else str(value)
    return parse(parent, state) if parents == 1 else NO_TRACE
