"""Writes to a caller who may be slow, or gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from polyroute.core.errors import Cancelled
from polyroute.server.rest.frame import FRAME

_NEVER_WAITS: Final = 16 * 1024
"""So many bytes can be written at once where nothing waits to be sent: writers wait from 64 KiB on, in asyncio."""


class Sending:
    """Writes one answer, from one task."""

    __slots__ = ("_http", "_patience")

    def __init__(self, http: web.Request) -> None:
        self._http = http
        self._patience = http[FRAME].patience

    async def write(self, write: Callable[[bytes], Awaitable[None]], chunk: bytes) -> None:
        """Has `write` write, and waits while the caller is behind; raises `ConnectionError` where it stays so."""
        transport = self._http.transport
        if transport is not None and len(chunk) <= _NEVER_WAITS and not transport.get_write_buffer_size():
            await write(chunk)
            return
        try:
            await self._patience.write(write, chunk)
        except Cancelled as error:
            if transport is not None:
                transport.abort()
            raise ConnectionAbortedError(error.message) from None
