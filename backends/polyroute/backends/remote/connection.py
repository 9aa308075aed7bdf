"""Connections to a peer, kept and shared: aiohttp's, asked without its session."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from polyroute.backends.remote.inflate import inflating
from polyroute.backends.remote.line import Line
from polyroute.backends.remote.names import Fixed

KEEPALIVE_S: Final = 30.0
"""How long a connection is kept that nobody uses, in seconds."""

_LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)


class KeptConnectionLost(Exception):
    """The peer had ended, or spoilt, a connection that was kept from an earlier request: it never saw this one."""


class Response:
    """The head of an answer, and its body as it comes.

    To be closed: the connection of one that is complete is kept.
    """

    __slots__ = ("_connection", "_inflating", "_line", "headers", "status")

    def __init__(self, connection: Connection, line: Line) -> None:
        self.status = line.answer.status
        self.headers = line.answer.headers
        self._connection = connection
        self._line = line
        self._inflating = inflating(self.headers)

    def __repr__(self) -> str:
        return f"<Response {self.status} {'complete' if self.complete else 'coming'}>"

    @property
    def complete(self) -> bool:
        """Whether no more of it is to come; some may wait to be read."""
        return self._line.answer.complete

    def read(self) -> Awaitable[bytes]:
        """The next piece of the body, empty at its end; raises aiohttp's errors, or the deadline's."""
        return self._line.read() if self._inflating is None else self._inflating.read(self._line.read)

    def close(self) -> None:
        """Gives the connection back; the peer sees it closed where more of this answer was to come."""
        if self._connection.protocol is None:  # it has it already, and another request may be on it
            return
        self._line.leave()
        self._connection.release()


class Connections:
    """Connections to the host of `url`, as many as there are requests; at the IP address `address` where one is given.

    Where they are not to `keep`, each carries one request. `late` makes the error of an answer whose deadline passes.
    """

    def __init__(
        self,
        url: URL,
        *,
        address: str | None,
        tls: ssl.SSLContext | bool,
        keep: bool,
        late: Callable[[], Exception],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._late = late
        keeping: dict[str, Any] = {"keepalive_timeout": KEEPALIVE_S} if keep else {"force_close": True}
        resolver = None if address is None else Fixed(address)
        self._connector = aiohttp.TCPConnector(limit=0, ssl=tls, resolver=resolver, **keeping)
        self._connector._factory = cast("partial[ResponseHandler]", partial(Line, self._loop))
        self._whom = aiohttp.ClientRequest("GET", url, loop=self._loop)

    async def send(self, request: bytes, timeout: aiohttp.ClientTimeout, deadline: float | None) -> Response:
        """The beginning of the answer to a whole request in HTTP/1.1, whatever its status.

        It is to be complete by `deadline`, on the clock of `time.monotonic`. Raises aiohttp's errors,
        `KeptConnectionLost` for some of them, or the one for the deadline.
        """
        connection = await self._connected(timeout, deadline)
        line = cast("Line", connection.protocol)
        try:
            await line.exchange(request, silence_s=timeout.sock_read or math.inf, deadline=deadline, late=self._late)
            return Response(connection, line)
        except BaseException as error:
            line.leave()
            connection.close()
            if line.has_answered and isinstance(error, _LOST) and not line.answer.begun:
                raise KeptConnectionLost from error
            raise

    async def _connected(self, timeout: aiohttp.ClientTimeout, deadline: float | None) -> Connection:
        """A connection that was kept, or a new one."""
        hurried = False
        if deadline is not None:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise self._late()
            if timeout.connect is None or remaining_s < timeout.connect:
                hurried, timeout = True, aiohttp.ClientTimeout(connect=remaining_s, ceil_threshold=remaining_s)
        try:
            return await self._connector.connect(self._whom, [], timeout)
        except TimeoutError as error:
            if hurried:
                raise self._late() from error
            raise aiohttp.ConnectionTimeoutError from error
        except aiohttp.ClientConnectorError as error:
            _without_frames(error)
            raise

    async def close(self) -> None:
        """Closes every connection, those that are in use too."""
        await self._connector.close()


def _without_frames(error: BaseException) -> None:
    """Takes from an error, and from those behind it, where they were raised.

    The frames of those who connect hold the errors that they raise. While a peer is away, each attempt would leave a
    ring of some fifty objects for the collector.
    """
    behind: BaseException | None = error
    while behind is not None:
        behind.__traceback__ = None
        behind = behind.__cause__ or behind.__context__
