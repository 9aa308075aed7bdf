"""Bodies that come compressed although `identity` was asked for: gzip and deflate (RFC 9110, section 8.4.1)."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import aiohttp
from aiohttp.http import HttpProcessingError

MAX_PIECE_BYTES: Final = 128 * 1024
"""Most that is inflated at a time."""
_CODINGS: Final = ("gzip", "x-gzip", "deflate")
_OTHERS: Final = ("br", "compress", "x-compress", "zstd")


def inflating(headers: Mapping[str, str]) -> Inflating | None:
    """What makes the body of an answer with these headers plain; None where it is so already."""
    coding = headers.get("Content-Encoding")
    if coding is None:
        return None
    coding = coding.lower()
    return Inflating(coding) if coding in _CODINGS or coding in _OTHERS else None


class Inflating:
    """One body, inflated as it comes."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inflater: zlib._Decompress | None = None
        self._left = b""

    async def read(self, more: Callable[[], Awaitable[bytes]]) -> bytes:
        """The next piece, empty at the end; `more` gives the next bytes as they come, none at their end.

        A little may become very much: others have their turn between two pieces of it.
        Raises aiohttp's error for what cannot be inflated, or breaks off, and for a coding that is not readable here.
        """
        if self._coding in _OTHERS:
            raise HttpProcessingError(message=f"its body is coded as {self._coding}, which nobody asked for")
        while True:
            if self._left:
                await asyncio.sleep(0)
            piece = self._left or await more()
            if not piece:
                return self._rest()
            plain = self._inflated(piece)
            if plain:
                return plain

    def _inflated(self, piece: bytes) -> bytes:
        if self._inflater is None or self._inflater.eof:  # or another member follows
            self._inflater = zlib.decompressobj(self._window(piece))
        try:
            plain = self._inflater.decompress(piece, MAX_PIECE_BYTES)
        except zlib.error as error:
            raise aiohttp.ClientPayloadError(f"its body is not coded as {self._coding}") from error
        self._left = self._inflater.unused_data or self._inflater.unconsumed_tail
        return plain

    def _rest(self) -> bytes:
        if self._inflater is None or self._inflater.eof:
            return b""
        plain = self._inflater.flush()
        if not plain and not self._inflater.eof:
            raise aiohttp.ClientPayloadError(f"its body breaks off, which is coded as {self._coding}")
        return plain

    def _window(self, beginning: bytes) -> int:
        """How zlib is told the coding; some take raw deflate for `deflate`, which it is not."""
        if self._coding != "deflate":
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if beginning[0] & 0x0F == 8 else -zlib.MAX_WBITS
