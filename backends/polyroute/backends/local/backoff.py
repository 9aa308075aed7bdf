"""How long to wait before something that has failed is tried again."""

from __future__ import annotations

from typing import Final

_DOUBLINGS: Final = 32  # more make no difference, and in the end no float


def backoff(times: int, first_s: float, longest_s: float) -> float:
    """Seconds to wait after the `times`th failure in a row: twice as long each time, up to the longest."""
    return min(longest_s, first_s * 2.0 ** min(times - 1, _DOUBLINGS))
