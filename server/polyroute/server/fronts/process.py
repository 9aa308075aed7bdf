"""A front process as its home has it: spawned, spoken to over a socket, and gone when that closes."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

from polyroute.server.fronts.link import Link
from polyroute.server.fronts.messages.frames import ToFront, ToHome, to_home_decoder

_EXIT_S: Final = 10.0
"""How long a process may take to end that says nothing more, in seconds."""
_SILENCE_S: Final = 30.0
"""How long one that listens may say nothing, in seconds: it says every second that it is there."""
_START_S: Final = 300.0
"""How long one may take until it listens, in seconds."""
_MOST_UNREAD: Final = 128 << 20
"""Bytes that one may leave unread."""


class FrontProcess:
    """One process, from `spawn` until `run` returns."""

    def __init__(self, process: asyncio.subprocess.Process, link: Link[ToHome]) -> None:
        self._process = process
        self._link = link
        self._quiet_s = 0.0
        self._why = ""

    def __repr__(self) -> str:
        return f"<FrontProcess {self.pid} returncode={self._process.returncode}>"

    @classmethod
    async def spawn(cls, turns: int) -> FrontProcess:
        """Starts a process; raises `OSError` where the system has no room for one. Its stderr is ours, by `turns`."""
        ours, theirs = socket.socketpair()
        with theirs:
            link = await Link.over(ours, to_home_decoder)
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # the folder that the server was started in is no place to import from
                    "-m",
                    "polyroute.server.fronts",
                    str(theirs.fileno()),
                    str(turns),
                    pass_fds=(theirs.fileno(), turns),
                    stdin=asyncio.subprocess.DEVNULL,
                )
            except BaseException:
                link.close()
                raise
        return cls(process, link)

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def send(self, message: ToFront) -> None:
        """Sends without waiting; lost where the process is gone, which `run` tells."""
        self._link.send(message)

    async def drained(self) -> None:
        """Waits while much is still to be sent."""
        await self._link.drained()

    async def run(self, receive: Callable[[ToHome], None]) -> str:
        """Passes on messages until the process ends, and returns in words how it ended.

        One that has closed its end of the socket is killed if it has not ended a little later.
        """

        def heard(message: ToHome) -> None:
            self._quiet_s = 0.0
            receive(message)

        await self._link.run(heard)
        try:
            code = await asyncio.wait_for(self._process.wait(), _EXIT_S)
            return self._why or _ending(code)
        except TimeoutError:
            await self.kill()
            return f"killed, for it had not ended {_EXIT_S:g} s after its last words"

    def look(self, since_s: float, *, listening: bool) -> None:
        """Kills a process that hangs, which `run` then tells; for whoever looks every `since_s` seconds.

        What counts is how often it was looked: a pause of this process, or of the machine, is no silence of that one.
        """
        self._quiet_s += since_s
        limit_s = _SILENCE_S if listening else _START_S
        if self._quiet_s > limit_s:
            self._end(f"killed, for it had said nothing for {limit_s:g} s")
        elif self._link.unsent > _MOST_UNREAD:
            self._end(f"killed, for it had left more than {_MOST_UNREAD >> 20} MiB unread")

    def _end(self, why: str) -> None:
        if self._process.returncode is None and not self._why:
            self._why = why
            self._process.kill()

    async def kill(self) -> None:
        """Ends the process at once, if it has not ended."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._link.close()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
