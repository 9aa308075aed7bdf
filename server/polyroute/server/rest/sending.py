"""Writes to a caller who may be slow, or gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from polyroute.core.errors import Cancelled
from polyroute.server.patience import Patience

PATIENCE = web.AppKey("patience", Patience)
"""The application's, for all of its streams."""


class Sending:
    """Writes one answer by `write`, from one task."""

    __slots__ = ("_http", "_patience", "_write")

    def __init__(self, http: web.Request, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._http = http
        self._patience = http.app[PATIENCE]
        self._write = write

    async def write(self, chunk: bytes) -> None:
        """Writes, and waits while the caller is behind; raises `ConnectionError` where it does not catch up."""
        try:
            await self._patience.write(self._write, chunk)
        except Cancelled as error:
            if self._http.transport is not None:
                self._http.transport.abort()
            raise ConnectionAbortedError(error.message) from None
