"""A caller who does not take what is written, the end of the answer as well, is cut off."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiohttp import web

from polyroute.server.rest import sending
from polyroute.server.rest.sending import Sending


class Transport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


class Http:
    """As much of a request as there is to it."""

    def __init__(self, transport: Transport | None) -> None:
        self.transport = transport


@pytest.mark.parametrize("transport", [Transport(), None])
async def test_a_caller_who_reads_nothing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, transport: Transport | None
) -> None:
    monkeypatch.setattr(sending, "STALL_S", 0.02)

    async def write(_: Any) -> None:
        await asyncio.Event().wait()

    http = cast("web.Request", Http(transport))
    with (
        Sending(http, write) as writes,
        pytest.raises(ConnectionAbortedError, match=r"left the stream unread for 0\.02 s"),
    ):
        await writes.write(b"x")
    assert transport is None or transport.aborted


async def test_a_caller_who_reads_gets_everything() -> None:
    taken: list[bytes] = []

    async def write(chunk: bytes) -> None:
        taken.append(chunk)

    transport = Transport()
    with Sending(cast("web.Request", Http(transport)), write) as writes:
        await writes.write(b"a")
        await writes.write(b"b")
    assert taken == [b"a", b"b"]
    assert not transport.aborted
