"""What callers ask, as bytes: equal bytes ask the same, so what was read and checked once need not be again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from polyroute.core.config import LimitsConfig

MOST_BYTES: Final = 8 * 1024 * 1024
"""About how much memory may be taken by the bytes that are known to one face, and by what they stand for."""
LONGEST: Final = 16 * 1024
"""Longest bytes that are known: to tell whether they are takes as long as they are."""

_ENTRY_BYTES: Final = 2_000
_TIMES_KEPT: Final = 4  # as bytes, as text, and in the full key of the cache, twice where it is escaped

T = TypeVar("T")


class KnownBytes(Generic[T]):
    """What bytes stand for, of those that were answered from memory and may be again; the oldest leave first.

    They passed the checks of `limits()`, and are forgotten when these are others. Used on the event loop alone.
    """

    def __init__(self, limits: Callable[[], LimitsConfig], *, most_bytes: int = MOST_BYTES) -> None:
        self._limits = limits
        self._checked_by = limits()
        self._most_bytes = most_bytes
        self._known: dict[bytes, T] = {}
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<KnownBytes {len(self._known)} requests, {self._bytes} of {self._most_bytes} bytes>"

    def __len__(self) -> int:
        return len(self._known)

    def find(self, raw: bytes) -> T | None:
        """What `raw` stands for; None where that is not known."""
        if len(raw) > LONGEST or (found := self._known.get(raw)) is None:
            return None
        if self._checked_by is self._limits():
            return found
        self._forget_all()
        return None

    def keep(self, raw: bytes, meaning: T) -> None:
        """From now on `raw`, which passed the checks, is known to stand for `meaning`; not where it is too long."""
        if len(raw) > LONGEST or raw in self._known:
            return
        if self._checked_by is not self._limits():
            self._forget_all()
        self._known[raw] = meaning
        self._bytes += _size(raw)
        while self._bytes > self._most_bytes:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._bytes -= _size(oldest)

    def _forget_all(self) -> None:
        self._known.clear()
        self._bytes = 0
        self._checked_by = self._limits()


def _size(raw: bytes) -> int:
    return _ENTRY_BYTES + _TIMES_KEPT * len(raw)
