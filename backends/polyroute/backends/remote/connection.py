"""Tells a connection that was lost after it was kept from one that was lost when it was new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import aiohttp

if TYPE_CHECKING:
    from aiohttp.connector import Connection

_LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)


class KeptConnectionLost(Exception):
    """The peer had closed a connection that was kept from an earlier request: it never saw this one."""


class Answer(aiohttp.ClientResponse):
    """An answer that raises `KeptConnectionLost` where it is that which came in its place.

    aiohttp's traces tell of kept connections too, for a seventh of the time that a request takes.
    """

    async def start(self, connection: Connection) -> Self:
        """Waits for the head of the answer."""
        marks = vars(connection.protocol)
        try:
            await super().start(connection)
        except _LOST as error:
            if "has_answered" in marks and not _begun(error):
                raise KeptConnectionLost from error
            raise
        marks["has_answered"] = True
        return self


def _begun(error: Exception) -> bool:
    """Whether a lost connection had brought a part of an answer (aiohttp then holds the parsed head as message)."""
    return isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)
