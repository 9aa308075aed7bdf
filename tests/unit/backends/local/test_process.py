"""How a worker process is ended, with a process of the tests' own."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import pytest

from polyroute.backends.local.process import WorkerProcess


class Ending:
    """A process that has ended once it is told to."""

    pid = 1
    returncode = 0

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def wait(self) -> int:
        await self.ended.wait()
        return 0


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancellation_that_meets_the_end_of_the_process_is_not_lost(turns: int) -> None:
    """Lost, it would leave a supervisor that goes on for ever."""
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        process = Ending()
        worker = WorkerProcess(cast("asyncio.subprocess.Process", process), reader, writer)
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0.01)
        process.ended.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        if not stopping.done():
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
        assert writer.is_closing()
