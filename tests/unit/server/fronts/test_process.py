"""A front's process as its home has it: one that hangs is ended, one that is busy is not."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from polyroute.server.fronts.link import Link
from polyroute.server.fronts.messages.exposing import Exposed
from polyroute.server.fronts.messages.frames import encode_frame, to_home_decoder
from polyroute.server.fronts.messages.life import Alive
from polyroute.server.fronts.process import FrontProcess

_STOPPED = "import signal; signal.pause()"


@asynccontextmanager
async def stopped() -> AsyncIterator[tuple[FrontProcess, socket.socket]]:
    """A process that does nothing, and its end of the link, which we can speak at as if we were it."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = (sys.executable, "-c", _STOPPED)
        process = await asyncio.create_subprocess_exec(*command)
        front = FrontProcess(process, await Link.over(ours, to_home_decoder))
        try:
            yield front, theirs
        finally:
            await front.kill()


async def ending(front: FrontProcess, theirs: socket.socket) -> str:
    """How it ended: with a process its end of the link closes."""
    theirs.shutdown(socket.SHUT_RDWR)
    async with asyncio.timeout(60):
        return await front.run(lambda message: None)


@pytest.mark.parametrize(("listening", "patience_s"), [(True, 30), (False, 300)])
async def test_a_process_that_says_nothing_is_ended_and_one_that_begins_has_longer(
    listening: bool, patience_s: int
) -> None:
    async with stopped() as (front, theirs):
        for _ in range(patience_s):
            front.look(1.0, listening=listening)
        assert "returncode=None" in repr(front)
        front.look(1.0, listening=listening)
        assert await ending(front, theirs) == f"killed, for it had said nothing for {patience_s} s"


async def test_a_process_that_says_anything_is_let_be() -> None:
    async with stopped() as (front, theirs):
        heard = asyncio.Event()
        running = asyncio.create_task(front.run(lambda message: heard.set()))
        for _ in range(3):
            for _ in range(20):
                front.look(1.0, listening=True)
            heard.clear()
            theirs.sendall(encode_frame(Alive()))
            async with asyncio.timeout(60):
                await heard.wait()
        assert not running.done()
        await front.kill()
        theirs.shutdown(socket.SHUT_RDWR)
        assert await running == "killed by SIGKILL"


async def test_a_process_that_reads_nothing_is_ended_before_much_is_kept_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("polyroute.server.fronts.process._MOST_UNREAD", 8 << 20)
    async with stopped() as (front, theirs):
        for size in (1 << 20,) * 7:
            await send(front, size)
            front.look(0.0, listening=True)
        assert "returncode=None" in repr(front)
        await send(front, 4 << 20)
        front.look(0.0, listening=True)
        assert await ending(front, theirs) == "killed, for it had left more than 8 MiB unread"


async def send(front: FrontProcess, size: int) -> None:
    front.send(Exposed(1, b"x" * size))
    await asyncio.sleep(0)  # what is sent in one turn of the loop leaves with the next


@pytest.mark.parametrize("code", [0, 3])
async def test_a_process_that_ends_by_itself_is_told_as_such(code: int) -> None:
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", f"raise SystemExit({code})")
    front = FrontProcess(process, await Link.over(ours, to_home_decoder))
    theirs.close()
    async with asyncio.timeout(60):
        assert await front.run(lambda message: None) == f"exit code {code}"
    await front.kill()
