"""One connection to a peer: aiohttp's protocol, with what is to be known of it beyond one answer."""

from __future__ import annotations

import asyncio
from typing import cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader


class Line(ResponseHandler):
    """Carries one request after the other. aiohttp's connector makes these, and keeps those that are free."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.has_answered = False
        self.body: StreamReader | None = None
        """Of the answer that is being read."""

    async def exchange(
        self, request: bytes, *, silence_s: float | None, max_header_bytes: int
    ) -> tuple[RawResponseMessage, StreamReader]:
        """Sends a whole request in HTTP/1.1; gives the head of the answer, and its body as it comes.

        The peer may be silent for `silence_s` seconds, then and amid the body. Raises aiohttp's errors.
        """
        if not self.is_connected() or (self.has_answered and self.should_close):  # or it answers what nobody asked
            raise aiohttp.ClientConnectionResetError("closed before the request was sent")
        self.set_response_params(read_until_eof=True, read_timeout=silence_s, max_field_size=max_header_bytes)
        cast("asyncio.Transport", self.transport).write(request)
        self.start_timeout()
        message, body = await self.read()
        while message.code < 200 and message.code != 101:  # interim answers, each of which ends aiohttp's time limit
            if not len(self):
                self.start_timeout()
            message, body = await self.read()
        self.has_answered = True
        self.body = body
        return message, body

    def fail(self, error: Exception) -> None:
        """Ends with `error` what is waited for here: the head of an answer, or its body, unless that is there whole."""
        if self.body is None or not self.body.is_eof():
            self.set_exception(error)
            if self.body is not None:
                self.body.set_exception(error)

    @property
    def should_close(self) -> bool:
        """Whether it can carry no other request: so, too, where the peer answered before it had read this one."""
        return super().should_close or self._is_behind

    def close(self) -> None:
        """Ends it; what the peer has not read yet it is not to get, or it could hold this connection open."""
        if self._is_behind:
            self.abort()
        else:
            super().close()

    @property
    def _is_behind(self) -> bool:
        """Whether a part of the request still waits to be sent."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Reads on after a pause.

        aiohttp 3.14 asks for that after each chunk that is taken out of a body, paused or not, and goes through its
        parser each time.
        """
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends the body with an error, whatever the reason.

        aiohttp 3.14 forgets that where a later piece of the body breaks HTTP's framing, and its reader waits for ever.
        """
        body = self.body
        super().connection_lost(exc)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the connection was lost"))
