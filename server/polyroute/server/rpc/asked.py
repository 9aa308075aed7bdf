"""Requests as gRPC brings them: bytes that are known, or a message to be read."""

from __future__ import annotations

from collections.abc import Callable

from polyroute.core.call import Worked
from polyroute.core.config import LimitsConfig
from polyroute.server.known import MOST_BYTES, KnownBytes
from polyroute.v1.inference_pb2 import GenerateRequest


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
    """Requests by their bytes, as of `polyroute.server.known.KnownBytes`."""

    def __init__(self, limits: Callable[[], LimitsConfig], *, most_bytes: int = MOST_BYTES) -> None:
        self._known: KnownBytes[Known] = KnownBytes(limits, most_bytes=most_bytes)

    def __len__(self) -> int:
        return len(self._known)

    def read(self, raw: bytes) -> Asked | Known:
        """The message in `raw`; raises `DecodeError` where there is none."""
        return self._known.find(raw) or Asked(raw)

    def keep(self, asked: Asked, worked: Worked) -> None:
        """From now on the bytes of `asked`, which passed the checks, are known to stand for the request in `worked`.

        One that brings an ID is not kept, for it will not come again.
        """
        if not asked.request_id:
            self._known.keep(asked.raw, Known(worked))
