"""A worker process as the router sees it: spawned, spoken to over a socket, and gone when that closes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from polyroute.backends.local.messages import (
    LENGTH_BYTES,
    FromWorker,
    Stop,
    ToWorker,
    encode_frame,
    from_worker_decoder,
)

_STOP_S: Final = 5.0


class WorkerProcess:
    """One process, from `spawn` until `run` returns. `receive` is called with each of its messages, in order."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.pid} returncode={self._process.returncode}>"

    @classmethod
    async def spawn(cls) -> WorkerProcess:
        """Starts a process; raises `OSError` where the system has no room for one. Its stderr is ours.

        Cancelled, it leaves none: the process comes last, and asyncio ends one whose start is given up.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # the folder that the server was started in is no place to import from
                    "-m",
                    "polyroute.backends.local.worker",
                    str(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
                )
            except BaseException:
                writer.close()
                raise
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def send(self, message: ToWorker) -> None:
        """Sends without waiting; the worker reads at any time. Lost where the worker is gone, which `run` tells."""
        self.send_frame(encode_frame(message))

    def send_frame(self, frame: bytes) -> None:
        """Sends what `encode_frame` made; as `send`."""
        if not self._writer.is_closing():
            self._writer.write(frame)

    async def run(self, receive: Callable[[FromWorker], None]) -> str:
        """Passes on messages until the process ends, and returns in words how it ended."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES), "big")
                receive(from_worker_decoder.decode(await self._reader.readexactly(size)))
        return _ending(await self._process.wait())

    async def stop(self) -> None:
        """Asks the process to end, then makes it; returns once its memory is free."""
        with suppress(ConnectionError):
            self.send(Stop())
        try:
            async with asyncio.timeout(_STOP_S):  # not `wait_for`: in Python 3.11 it can lose a cancellation
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._process.kill()
            self._writer.close()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name
