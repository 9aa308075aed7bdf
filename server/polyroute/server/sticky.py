"""What routes may be keyed on, out of the headers (HTTP) or the metadata (gRPC) of a request."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def headers_of(given: Iterable[tuple[str, str | bytes]], wanted: Collection[str]) -> dict[str, str]:
    """Those of `given` that are `wanted`, by their names in small letters; no others are carried along.

    One that was sent several times is one, joined by commas (RFC 9110, 5.3).
    """
    found: dict[str, str] = {}
    if wanted:
        for name, value in given:
            name = name.lower()
            if name in wanted and isinstance(value, str):
                found[name] = f"{found[name]}, {value}" if name in found else value
    return found
