"""Writes to a caller who may be slow, or gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Self

from aiohttp import web

from polyroute.core.errors import Cancelled
from polyroute.server.patience import Patience

STALL_S: Final = 60.0
"""How long a caller may leave unread what was sent before it is taken to have left, in seconds: it holds a permit."""


class Sending:
    """Writes one answer by `write`, from one task, within a `with` block."""

    __slots__ = ("_http", "_patience")

    def __init__(self, http: web.Request, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._http = http
        self._patience = Patience(write, STALL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._patience.end()

    async def write(self, chunk: bytes) -> None:
        """Writes, and waits while the caller is behind; raises `ConnectionError` where it does not catch up."""
        try:
            await self._patience.write(chunk)
        except Cancelled as error:
            if self._http.transport is not None:
                self._http.transport.abort()
            raise ConnectionAbortedError(error.message) from None
