"""A connection passes on what comes, holds a fast peer back, and ends in the right way."""

from __future__ import annotations

import asyncio
import math
import time

import aiohttp
import pytest
from aiohttp.http import HttpProcessingError

from polyroute.backends.remote.line import MAX_HELD_BYTES, Line

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.unsent = 0
        self.reading = True
        self.ended = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = "close"

    def abort(self) -> None:
        self.ended = "abort"


async def asked(*, silence_s: float = math.inf, deadline: float | None = None) -> tuple[Line, Wire]:
    """A line whose peer has begun to answer."""
    line, wire = Line(asyncio.get_running_loop()), Wire()
    line.connection_made(wire)
    exchange = asyncio.ensure_future(
        line.exchange(b"GET", silence_s=silence_s, deadline=deadline, late=lambda: ValueError("late"))
    )
    await asyncio.sleep(0)
    assert wire.sent == b"GET"
    line.data_received(HEAD)
    await exchange
    return line, wire


async def test_what_comes_is_read_at_once_and_to_its_end() -> None:
    line, _ = await asked()
    line.data_received(chunk(b"a") + chunk(b"b"))
    assert await line.read() == b"ab"
    reading = asyncio.ensure_future(line.read())
    await asyncio.sleep(0)
    line.data_received(chunk(b"c") + END)
    assert await reading == b"c"
    assert [await line.read(), await line.read()] == [b"", b""]
    assert not line.should_close


@pytest.mark.parametrize("reason", [None, ConnectionResetError("reset")])
async def test_what_came_before_the_connection_was_lost_is_read_before_the_failure(reason: Exception | None) -> None:
    line, _ = await asked()
    line.data_received(chunk(b"a"))
    line.connection_lost(reason)
    assert await line.read() == b"a"
    with pytest.raises(aiohttp.ClientPayloadError):
        await line.read()
    assert line.should_close
    assert line.closed is None


async def test_an_answer_that_is_complete_outlives_its_connection() -> None:
    line, _ = await asked()
    line.data_received(chunk(b"a") + END)
    line.connection_lost(None)
    assert [await line.read(), await line.read()] == [b"a", b""]


async def test_a_deadline_ends_an_answer_at_once_whatever_of_it_waits_to_be_read() -> None:
    line, _ = await asked(deadline=time.monotonic() + 600)
    line.data_received(chunk(b"a"))
    line._deadline = time.monotonic()
    line._look()
    line.data_received(chunk(b"b"))
    with pytest.raises(ValueError, match="late"):
        await line.read()
    assert line.should_close


async def test_silence_ends_an_answer() -> None:
    line, _ = await asked(silence_s=0.01)
    with pytest.raises(aiohttp.SocketTimeoutError):
        await line.read()


async def test_while_nobody_reads_the_silence_is_ours() -> None:
    line, wire = await asked(silence_s=0.01)
    line.data_received(chunk(b"x" * MAX_HELD_BYTES))
    await asyncio.sleep(0.05)
    assert not wire.reading
    assert len(await line.read()) == MAX_HELD_BYTES
    with pytest.raises(aiohttp.SocketTimeoutError):
        await line.read()


async def test_a_fast_peer_is_held_back_until_it_is_read() -> None:
    line, wire = await asked()
    for _ in range(MAX_HELD_BYTES // 1000):
        line.data_received(chunk(b"x" * 1000))
    assert not wire.reading
    await line.read()
    assert wire.reading
    line.data_received(chunk(b"x" * 1000))
    assert wire.reading, "it is counted anew"


async def test_what_is_not_read_to_its_end_is_closed_and_read_no_more() -> None:
    line, wire = await asked()
    line.data_received(chunk(b"x" * 2 * MAX_HELD_BYTES))
    line.leave()
    assert wire.reading
    assert line.should_close
    line.close()
    assert wire.ended == "close"


async def test_a_request_that_has_not_left_whole_is_broken_off() -> None:
    line, wire = await asked()
    line.data_received(END)
    assert not line.should_close
    wire.unsent = 1
    assert line.should_close
    line.close()
    assert wire.ended == "abort"


async def test_what_comes_unasked_ends_the_connection() -> None:
    line, wire = await asked()
    line.data_received(END)
    line.leave()
    line.data_received(HEAD)
    assert wire.ended == "close"
    with pytest.raises(aiohttp.ClientConnectionResetError):
        await line.exchange(b"GET", silence_s=1, deadline=None, late=ValueError)


async def test_a_server_that_speaks_first_is_told_of() -> None:
    line = Line(asyncio.get_running_loop())
    line.connection_made(Wire())
    line.data_received(b"220 mail.example")
    with pytest.raises(HttpProcessingError, match=r"220 mail\.example"):
        await line.exchange(b"GET", silence_s=1, deadline=None, late=ValueError)


async def test_closed_is_done_once_it_is_closed() -> None:
    line, _ = await asked()
    closed = line.closed
    assert closed is not None
    assert line.closed is closed
    line.connection_lost(None)
    assert closed.done()


async def test_nothing_is_left_that_would_wake_it() -> None:
    line, _ = await asked(silence_s=600.0)
    assert line._alarm is not None
    line.connection_lost(None)
    assert line._alarm.cancelled()


async def test_one_alarm_serves_one_answer_after_the_other() -> None:
    line, _ = await asked(silence_s=600.0)
    alarm = line._alarm
    line.data_received(END)
    line.leave()
    exchange = asyncio.ensure_future(line.exchange(b"GET", silence_s=600.0, deadline=None, late=ValueError))
    await asyncio.sleep(0)
    line.data_received(HEAD)
    await exchange
    assert line._alarm is alarm
