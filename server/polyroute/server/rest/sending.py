"""Writes to a caller who may be slow, or gone."""

from __future__ import annotations

from asyncio import WriteTransport
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

    def at_once(self, chunk: bytes) -> bool:
        """Writes a chunk where that cannot have to wait; nothing, and False, where it may.

        Raises `ConnectionError` where the caller has left.
        """
        transport = self._http.transport
        if transport is None or _may_wait(transport, chunk):
            return False
        if transport.is_closing():
            raise ConnectionResetError("the caller has left")
        transport.write(chunk)
        return True

    async def write(self, write: Callable[[bytes], Awaitable[None]], chunk: bytes) -> None:
        """Has `write` write, and waits while the caller is behind; raises `ConnectionError` where it stays so."""
        transport = self._http.transport
        if transport is not None and not _may_wait(transport, chunk):
            await write(chunk)
            return
        try:
            await self._patience.write(write, chunk)
        except Cancelled as error:
            if transport is not None:
                transport.abort()
            raise ConnectionAbortedError(error.message) from None


def _may_wait(transport: WriteTransport, chunk: bytes) -> bool:
    return len(chunk) > _NEVER_WAITS or bool(transport.get_write_buffer_size())
