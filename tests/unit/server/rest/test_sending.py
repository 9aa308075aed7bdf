"""A caller who does not take what is written, the end of the answer as well, is cut off."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiohttp import web

from polyroute.core.call import Entrance
from polyroute.server.patience import Patience
from polyroute.server.rest.frame import FRAME, Frame
from polyroute.server.rest.sending import Sending


class Transport:
    aborted = False
    closing = False

    def __init__(self, unsent: int = 0) -> None:
        self.unsent = unsent
        self.written: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self.written.append(chunk)

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True


class Http:
    """As much of a request as there is to it."""

    def __init__(self, transport: Transport | None, patience: Patience) -> None:
        self.transport = transport
        self._frame = Frame(Entrance(), "r", 0.0, patience)

    def __getitem__(self, key: object) -> Frame:
        assert key is FRAME
        return self._frame


@pytest.mark.parametrize(
    ("transport", "chunk"), [(Transport(unsent=1), b"x"), (Transport(), b"x" * 100_000), (None, b"x")]
)
async def test_a_caller_who_reads_nothing_is_cut_off(transport: Transport | None, chunk: bytes) -> None:
    async def write(_: Any) -> None:
        await asyncio.Event().wait()

    http = cast("web.Request", Http(transport, Patience(0.02)))
    with pytest.raises(ConnectionAbortedError, match=r"left the stream unread for 0\.02 s"):
        await Sending(http).write(write, chunk)
    assert transport is None or transport.aborted


async def test_a_caller_who_reads_gets_everything() -> None:
    taken: list[bytes] = []

    async def write(chunk: bytes) -> None:
        taken.append(chunk)

    transport = Transport()
    sending = Sending(cast("web.Request", Http(transport, Patience(60))))
    await sending.write(write, b"a")
    transport.unsent = 1
    await sending.write(write, b"b")
    assert taken == [b"a", b"b"]
    assert not transport.aborted


@pytest.mark.parametrize(
    ("transport", "chunk"), [(Transport(unsent=1), b"x"), (Transport(), b"x" * 100_000), (None, b"x")]
)
def test_what_may_have_to_wait_is_not_written_at_once(transport: Transport | None, chunk: bytes) -> None:
    assert not Sending(cast("web.Request", Http(transport, Patience(60)))).at_once(chunk)
    assert transport is None or not transport.written


def test_what_cannot_wait_is_written_at_once_unless_the_caller_has_left() -> None:
    transport = Transport()
    sending = Sending(cast("web.Request", Http(transport, Patience(60))))
    assert sending.at_once(b"x")
    transport.closing = True
    with pytest.raises(ConnectionError):
        sending.at_once(b"y")
    assert transport.written == [b"x"]
