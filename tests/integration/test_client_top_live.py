"""The live screen of `polyroute top`, driven in a terminal of its own."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Final

from polyroute.backends.echo import EchoBackend
from tests.integration.grpc_serving import WAIT_S, serving, settings_for

CTRL_C: Final = b"\x03"
ENTER_SCREEN, LEAVE_SCREEN, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The terminal becomes the controlling one, so that its Ctrl-C reaches the program as it does a person's.
_PROGRAM: Final = (
    "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from polyroute.client.cli import main; main()"
)


class Terminal:
    """What a program wrote to its terminal, and what is typed there."""

    def __init__(self, fd: int, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._fd = fd
        self._written = b""
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, self._read)

    @property
    def written(self) -> str:
        """Everything, escape sequences too."""
        return self._written.decode(errors="replace")

    @property
    def drawings(self) -> list[str]:
        """Each drawing of the screen so far, as text."""
        return [_ESCAPES.sub("", part) for part in self.written.split("\x1b[H")[1:]]

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    async def until(self, seen: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not seen():
                self._news.clear()
                await self._news.wait()

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), WAIT_S)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        try:
            self._written += os.read(self._fd, 65_536)
        except OSError:  # the program has ended
            asyncio.get_running_loop().remove_reader(self._fd)
        self._news.set()


@asynccontextmanager
async def top(address: str) -> AsyncIterator[Terminal]:
    """`polyroute top` of that server, ten times a second."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(ours, (24, 120))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, "top", "-a", address, "--interval", "0.1"),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(its)
    terminal = Terminal(ours, process)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
        terminal.close()


async def test_it_follows_the_models_and_gives_the_terminal_back(tmp_path: Path) -> None:
    async with serving(EchoBackend("one"), EchoBackend("two"), folder=tmp_path) as at:
        address = str(at.server.http_address)
        async with top(address) as terminal:
            await terminal.until(lambda: any(_row(drawing, "two") for drawing in terminal.drawings))
            assert ENTER_SCREEN in terminal.written
            assert LEAVE_SCREEN not in terminal.written
            idle = [row[5:7] for row in map(_row, terminal.drawings, repeat("one")) if len(row) > 6]
            assert idle
            assert all(rates == ["0.0", "0.0"] for rates in idle)

            async def talk() -> None:
                while True:
                    await at.text(model="one")

            talking = asyncio.create_task(talk())
            await terminal.until(lambda: any(_busy(drawing) for drawing in terminal.drawings))
            talking.cancel()
            before = len(terminal.drawings)
            await terminal.until(lambda: any(_row(d, "one")[-1:] == ["-"] for d in terminal.drawings[before:]))
            assert f"http://{address}/metrics, every 0.1 s; Ctrl-C leaves" in terminal.drawings[-2]

            terminal.type(CTRL_C)
            assert await terminal.ended() == 0
            await terminal.until(lambda: LEAVE_SCREEN in terminal.written)
            assert SHOW_CURSOR in terminal.written
            assert "Traceback" not in terminal.written


async def test_a_server_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    settings = settings_for(EchoBackend("one"), folder=tmp_path)
    async with serving(EchoBackend("one"), folder=tmp_path, settings=settings) as at:
        address = at.server.http_address
        terminals = top(str(address))
        terminal = await terminals.__aenter__()
        await terminal.until(lambda: any(_row(drawing, "one") for drawing in terminal.drawings))
    try:
        await terminal.until(lambda: any("cannot be reached" in drawing for drawing in terminal.drawings))
        gone = len(terminal.drawings)
        again = replace(settings, http=address)
        async with serving(EchoBackend("one"), folder=tmp_path, settings=again):
            await terminal.until(lambda: any(_row(drawing, "one") for drawing in terminal.drawings[gone:]))
            terminal.type(CTRL_C)
            assert await terminal.ended() == 0
    finally:
        await terminals.__aexit__(None, None, None)


async def test_what_never_was_a_server_ends_it_in_one_line(tmp_path: Path) -> None:
    async with serving(EchoBackend("one"), folder=tmp_path) as at:
        gone = str(at.server.http_address)
    async with top(gone) as terminal:
        assert await terminal.ended() == 1
        await terminal.until(lambda: "cannot be reached" in terminal.written)
        assert SHOW_CURSOR in terminal.written
        assert "Traceback" not in terminal.written


def _row(drawing: str, model: str) -> list[str]:
    """The words of a model's row; none where the drawing has no such row."""
    return next((line.split() for line in drawing.splitlines() if line.split()[:1] == [model]), [])


def _busy(drawing: str) -> bool:
    row = _row(drawing, "one")
    return len(row) > 5 and float(row[5]) > 0 and row[-1] == "0.0%"
