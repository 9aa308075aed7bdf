"""Writes to a caller who may be slow, or gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from polyroute.core.errors import Cancelled
from polyroute.server.patience import Patience

PATIENCE = web.AppKey("patience", Patience)
"""The application's, for all of its streams."""

_NEVER_WAITS: Final = 16 * 1024
"""So many bytes can be written at once where nothing waits to be sent: writers wait from 64 KiB on, in asyncio."""


class Sending:
    """Writes one answer by `write`, from one task."""

    __slots__ = ("_http", "_patience", "_write")

    def __init__(self, http: web.Request, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._http = http
        self._patience = http.app[PATIENCE]
        self._write = write

    async def write(self, chunk: bytes) -> None:
        """Writes, and waits while the caller is behind; raises `ConnectionError` where it does not catch up."""
        transport = self._http.transport
        if transport is not None and len(chunk) <= _NEVER_WAITS and not transport.get_write_buffer_size():
            await self._write(chunk)
            return
        try:
            await self._patience.write(self._write, chunk)
        except Cancelled as error:
            if transport is not None:
                transport.abort()
            raise ConnectionAbortedError(error.message) from None
