"""What callers ask, as bytes: equal bytes ask the same, so what was read and checked once need not be again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from polyroute.core.call import Worked
from polyroute.core.config import LimitsConfig
from polyroute.v1.inference_pb2 import GenerateRequest

MOST_BYTES: Final = 8 * 1024 * 1024
"""About how much memory the requests that are known may take together."""
LONGEST: Final = 16 * 1024
"""Longest request that is known, in bytes: to tell whether it is takes as long as it is."""

_ENTRY_BYTES: Final = 2_000
_TIMES_KEPT: Final = 4  # as bytes, as text, and in the full key of the cache, twice where it is escaped


class Known:
    """What bytes that came before stand for."""

    __slots__ = ("model", "request_id", "worked")

    def __init__(self, worked: Worked) -> None:
        self.worked = worked
        self.model = worked.request.model
        self.request_id = ""


class Asked:
    """A message that came in, to be read; `model` and `request_id` are its own, whatever they are."""

    __slots__ = ("model", "raw", "request_id", "wire")

    def __init__(self, raw: bytes) -> None:
        """Raises `DecodeError` for bytes that are no message."""
        self.raw = raw
        self.wire = GenerateRequest.FromString(raw)
        self.model = self.wire.model
        self.request_id = self.wire.request_id


class KnownRequests:
    """Requests by their bytes, those that were answered from memory and may be again; the oldest leave first.

    They passed the checks of `limits()`, and are forgotten when these are others. Used on the event loop alone.
    """

    def __init__(self, limits: Callable[[], LimitsConfig], *, most_bytes: int = MOST_BYTES) -> None:
        self._limits = limits
        self._checked_by = limits()
        self._most_bytes = most_bytes
        self._known: dict[bytes, Known] = {}
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<KnownRequests {len(self._known)} requests, {self._bytes} of {self._most_bytes} bytes>"

    def __len__(self) -> int:
        return len(self._known)

    def read(self, raw: bytes) -> Asked | Known:
        """The message in `raw`; raises `DecodeError` where there is none."""
        if len(raw) <= LONGEST and (found := self._known.get(raw)) is not None:
            if self._checked_by is self._limits():
                return found
            self._forget_all()
        return Asked(raw)

    def keep(self, asked: Asked, worked: Worked) -> None:
        """From now on the bytes of `asked`, which passed the checks, are known to stand for the request in `worked`.

        One that brings an ID is not kept, for it will not come again.
        """
        if asked.request_id or len(asked.raw) > LONGEST or asked.raw in self._known:
            return
        if self._checked_by is not self._limits():
            self._forget_all()
        self._known[asked.raw] = Known(worked)
        self._bytes += _size(asked.raw)
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
