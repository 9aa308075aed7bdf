"""A burst of callers who all connect at once waits, and is not dropped."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from polyroute.backends.echo import EchoBackend
from tests.integration.grpc_serving import WAIT_S, serving

CALLERS = 2000
_LONGEST_QUEUE = Path("/proc/sys/net/core/somaxconn")


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as such a burst takes, at both ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * CALLERS:
        pytest.skip(f"no more than {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * CALLERS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_a_burst_of_callers_is_taken_up(tmp_path: Path) -> None:
    if not _LONGEST_QUEUE.exists() or int(_LONGEST_QUEUE.read_text()) < CALLERS:
        pytest.skip("the system lets fewer connections wait")
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        address = at.server.http_address
        with ExitStack() as callers:
            # While this connects, the server, in the same thread, takes up none of them.
            sockets = [
                callers.enter_context(socket.create_connection((address.host, address.port), timeout=10))
                for _ in range(CALLERS)
            ]
            answers = await asyncio.gather(*map(_asked, sockets))
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


async def _asked(caller: socket.socket) -> bytes:
    caller.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_S):
        await loop.sock_sendall(caller, b"GET /healthz HTTP/1.1\r\nHost: m\r\n\r\n")
        return await loop.sock_recv(caller, 1024)
