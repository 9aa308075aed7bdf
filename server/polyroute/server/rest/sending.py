"""Writes to a caller who may be slow, or gone."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

STALL_S: Final = 60.0
"""How long a caller may leave unread what was sent before it is taken to have left, in seconds: it holds a permit."""


async def send(http: web.Request, response: web.StreamResponse, chunk: bytes) -> None:
    """Writes, and waits while the caller is behind; raises `ConnectionError` where it does not catch up."""
    try:
        async with asyncio.timeout(STALL_S):
            await response.write(chunk)
    except TimeoutError:
        if http.transport is not None:
            http.transport.abort()
        raise ConnectionAbortedError(f"the caller read nothing for {STALL_S:g} s") from None
