"""One connection to a peer: carries a request, and brings its answer, as often as both sides keep it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, cast

import aiohttp
from aiohttp.http import HttpProcessingError

from polyroute.backends.remote.http_answers import HttpAnswers, NotHttp

MAX_HELD_BYTES: Final = 256 * 1024
"""What may wait to be read before the peer is held back; what has come with it until then is more."""


class Line(asyncio.Protocol):
    """Carries one request after the other. aiohttp's connector makes these, keeps those that are free, and ends them.

    To it a line is an `aiohttp.client_proto.ResponseHandler`, of which it uses `transport`, `is_connected`,
    `should_close`, `close`, `abort` and `closed`.
    """

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_closed",
        "_deadline",
        "_error",
        "_heard",
        "_held",
        "_late",
        "_loop",
        "_lost",
        "_paused",
        "_silence_s",
        "_waiter",
        "answer",
        "has_answered",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer = HttpAnswers()
        self.has_answered = False
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._lost = False
        self._closed: asyncio.Future[None] | None = None
        self._held = 0
        self._paused = False
        self._heard = 0.0
        self._silence_s = self._deadline = math.inf
        self._late: Callable[[], Exception] = TimeoutError
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    def __repr__(self) -> str:
        return f"<Line {'open' if self.is_connected() else 'closed'} {self.answer!r}>"

    async def exchange(
        self, request: bytes, *, silence_s: float, deadline: float | None, late: Callable[[], Exception]
    ) -> None:
        """Sends a whole request in HTTP/1.1; returns once the head of its answer is there.

        The peer may be silent for `silence_s` seconds, then and amid the body, and has until `deadline`, on the clock
        of `time.monotonic`, to complete it; `late` makes the error where it does not. Raises aiohttp's errors.
        """
        if self._error is not None and not self.has_answered:
            raise self._error
        if not self.is_connected() or not self.answer.reusable:
            raise aiohttp.ClientConnectionResetError("closed before the request was sent")
        self.answer.begin()
        self._silence_s, self._deadline, self._late = silence_s, math.inf if deadline is None else deadline, late
        self._heard = time.monotonic()
        cast("asyncio.Transport", self.transport).write(request)
        self._limit()
        while not self.answer.status:
            await self._more()
        self.has_answered = True

    async def read(self) -> bytes:
        """The next part of the body, all that has come of it; empty at its end. Raises aiohttp's errors."""
        answer = self.answer
        while not answer.pieces:
            if answer.complete:
                return b""
            await self._more()
        self._held = 0
        if self._paused:
            self._resume()
        return answer.take()

    def leave(self) -> None:
        """Nobody reads the answer any more."""
        self._deadline = self._silence_s = math.inf
        self._error = None  # or it, and where it was raised, would hold each other
        self.answer.pieces.clear()
        self._held = 0
        if self._paused:
            self._resume()

    async def _more(self) -> None:
        """Returns when there is more to see than there was, or raises why there will not be."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        """Ends with `error` what is waited for, unless the answer is complete."""
        if not self.answer.complete and self._error is None:
            self._error = error
            self.answer.reusable = False
            self._wake()

    def _resume(self) -> None:
        self._paused, self._heard = False, time.monotonic()
        if self.is_connected():
            cast("asyncio.Transport", self.transport).resume_reading()

    def _limit(self) -> None:
        """Has `_look` called when a limit may be passed.

        An alarm that comes before is left as it is, to be set again then: as a rule no call needs to set one.
        """
        at = min(self._deadline, self._heard + self._silence_s)
        if at < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm, self._alarm_at = self._loop.call_later(at - time.monotonic(), self._look), at

    def _look(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        if self.answer.complete:
            return
        now = time.monotonic()
        if self._paused:
            self._heard = now  # it waits for us
        if now >= self._deadline:
            self.answer.pieces.clear()
            self._fail(self._late())
        elif now >= self._heard + self._silence_s:
            self._fail(aiohttp.SocketTimeoutError("silent"))
        else:
            self._limit()

    # What aiohttp's connector asks, and the loop tells.

    @property
    def should_close(self) -> bool:
        """Whether it can carry no other request: so, too, where the peer answered before it had read this one."""
        return not (self.answer.complete and self.answer.reusable) or self._is_behind

    def is_connected(self) -> bool:
        """Whether a request can be sent."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def closed(self) -> asyncio.Future[None] | None:
        """Done once it is closed; None where it is already."""
        if self._closed is None and not self._lost:
            self._closed = self._loop.create_future()
        return self._closed

    def close(self) -> None:
        """Ends it; what the peer has not read yet it is not to get, or it could hold this connection open."""
        self.answer.end(orderly=False)
        if self._is_behind:
            self.abort()
        elif self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Ends it at once."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def _is_behind(self) -> bool:
        """Whether a part of the request still waits to be sent."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """The peer has sent something."""
        if self._error is not None:  # too late
            return
        self._heard = time.monotonic()
        answer = self.answer
        if answer.complete:
            answer.reusable = False
            self._error = HttpProcessingError(message=f"it spoke unasked: {data[:200]!r}")
            self.close()
            return
        try:
            answer.feed(data)
        except NotHttp as error:
            self._fail(_broken(answer, error))
            return
        if not answer.complete:
            self._held += len(data)
            if self._held > MAX_HELD_BYTES and not self._paused and self.is_connected():
                self._paused = True
                cast("asyncio.Transport", self.transport).pause_reading()
        if answer.status:
            self._wake()

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is closed."""
        self.transport, self._lost = None, True
        self.answer.end(orderly=exc is None)
        self._fail(_broken(self.answer, exc))
        self._wake()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)


def _broken(answer: HttpAnswers, error: BaseException | None) -> Exception:
    """What aiohttp would raise for an answer that ends with `error`, None where the peer closed the connection."""
    if answer.status:
        return aiohttp.ClientPayloadError(str(error or "closed"))
    if isinstance(error, NotHttp):
        return HttpProcessingError(message=str(error))
    if isinstance(error, OSError):
        return aiohttp.ClientOSError(*error.args)
    return aiohttp.ServerDisconnectedError()
