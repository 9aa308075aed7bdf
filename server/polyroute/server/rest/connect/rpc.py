"""An HTTP request as the servicers see an RPC."""

from __future__ import annotations

import re
import time
from typing import Any, Final, cast

import grpc.aio
from aiohttp import web

from polyroute.core.errors import InvalidArgument, clip

TIMEOUT: Final = "Connect-Timeout-Ms"
_MILLISECONDS: Final = re.compile(r"[0-9]{1,10}")


class HttpRpc:
    """What our servicers ask of `grpc.aio.ServicerContext`, and no more: deadline, metadata, peer."""

    def __init__(self, http: web.Request) -> None:
        """Raises `InvalidArgument` where the deadline cannot be read."""
        self._http = http
        self.timeout_s = _timeout_s(http)
        """How long the caller waits from here on, in seconds; None for ever."""
        self._deadline = None if self.timeout_s is None else time.monotonic() + self.timeout_s

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, never below zero; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def invocation_metadata(self) -> list[tuple[str, str]]:
        """The request's headers, their names in small letters."""
        return [(name.lower(), value) for name, value in self._http.headers.items()]

    def as_context(self) -> grpc.aio.ServicerContext[Any, Any]:
        """Itself, with the type that gRPC's stubs ask for."""
        return cast("grpc.aio.ServicerContext[Any, Any]", self)


def _timeout_s(http: web.Request) -> float | None:
    text = http.headers.get(TIMEOUT)
    if text is None:
        return None
    if not _MILLISECONDS.fullmatch(text) or int(text) == 0:
        shown = f"`{clip(text, 80)}`"
        problem = f"{shown} is no number of whole milliseconds from 1 to 9999999999"
        raise InvalidArgument(TIMEOUT, problem, quoted=shown)
    return int(text) / 1000
