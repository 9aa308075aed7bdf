"""One end of the socket between a front process and its home: whole messages in both directions, in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

import msgspec

from polyroute.server.fronts.messages.frames import LENGTH_BYTES, ToFront, ToHome, encode_frame

_READ_BYTES: Final = 256 * 1024

_InT = TypeVar("_InT", ToFront, ToHome)


class Link(Generic[_InT]):
    """Sends and receives until the other side is gone. What is sent in one turn of the event loop leaves together."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decoder: msgspec.msgpack.Decoder[_InT]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.msgpack.Decoder[_InT] = decoder
        self._frames: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def over(cls, end: socket.socket, decoder: msgspec.msgpack.Decoder[_InT]) -> Link[_InT]:
        """A link over one end of a socket pair."""
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=_READ_BYTES)
        return cls(reader, writer, decoder)

    def send(self, message: ToFront | ToHome) -> None:
        """Sends without waiting; lost where the other side is gone, which `run` tells."""
        if not self._frames:
            self._loop.call_soon(self._flush)
        self._frames.append(encode_frame(message))

    @property
    def unsent(self) -> int:
        """Bytes that wait for the other side to take them."""
        return self._writer.transport.get_write_buffer_size()

    async def drained(self) -> None:
        """Waits while much is still to be sent."""
        self._flush()
        with suppress(ConnectionError):  # `run` tells
            await self._writer.drain()

    async def run(self, receive: Callable[[_InT], object]) -> None:
        """Passes on messages until the other side is gone."""
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES), "big")
                receive(self._decoder.decode(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    def close(self) -> None:
        """Sends what waits and closes this end."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if frames and not self._writer.is_closing():
            self._writer.write(b"".join(frames))
