"""Amounts in the words of people: sizes and spans of time."""

from __future__ import annotations

from typing import Final

_SIZES: Final = ("KiB", "MiB", "GiB", "TiB")
_SPANS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def size(count: int) -> str:
    """`count` bytes, such as `512 B` or `1.5 GiB`."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in _SIZES:
        amount /= 1024
        if amount < 999.95 or unit == _SIZES[-1]:
            break
    return f"{amount:.1f} {unit}"


def span(seconds: float) -> str:
    """A span of time in its two largest units, such as `1h 5m`; below a minute with its tenths, such as `1.5 s`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[str] = []
    for unit, length in _SPANS:
        if left >= length or parts:
            parts.append(f"{left // length}{unit}")
            left %= length
    return " ".join(parts[:2])
