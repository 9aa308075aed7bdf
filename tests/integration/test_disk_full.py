"""The answer cache on a disk that is full: calls are answered as if there were no cache, and kept again afterwards."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc.aio
import pytest

from polyroute.backends.echo import EchoBackend
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from tests.integration.grpc_serving import WAIT_S, serving
from tests.integration.test_server_process import FREE, config_for, ready

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fills a file system of Linux")

_LARGE = "word " * 20_000  # an answer that takes a file of its own


def tmpfs_can_be_mounted() -> bool:
    """Whether this user may have a file system of its own."""
    with suppress(OSError):
        return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
    return False


class FullDisk:
    """The disk of one server process: 4 MiB of its own where that may be had, else a limit on what it may write."""

    def __init__(self, process: Process, cache: Path, *, own: bool) -> None:
        self._process = process
        self._filler = Path(f"/proc/{process.pid}/root{cache}/filler") if own else None

    def fill(self) -> None:
        """From now on, every write fails."""
        if self._filler is None:
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return
        with self._filler.open("wb", buffering=0) as file:
            for size in (65536, 1):
                with suppress(OSError):  # no space left
                    while True:
                        file.write(b"x" * size)

    def free(self) -> None:
        """Writes work again."""
        if self._filler is None:
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, unlimited)
        else:
            self._filler.unlink()


@asynccontextmanager
async def running(folder: Path, config: Path) -> AsyncIterator[tuple[Process, FullDisk]]:
    """A server whose cache lies on a disk that can be filled."""
    cache = folder / "cache"
    cache.mkdir()
    command = [sys.executable, "-m", "polyroute.server", "--config", str(config), *FREE]
    own = tmpfs_can_be_mounted()
    if own:
        mount = f'mount -t tmpfs -o size=4m none "{cache}" && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", mount, "sh", *command]
    env = {**os.environ, "POLYROUTE_CACHE_DIR": str(cache)}
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL, env=env)
    try:
        yield process, FullDisk(process, cache, own=own)
    finally:
        process.kill()
        await process.communicate()


async def test_calls_are_answered_while_nothing_can_be_stored(tmp_path: Path) -> None:
    echo = EchoBackend("m")
    async with serving(echo, folder=tmp_path / "peer") as peer:
        config = config_for(peer, tmp_path)
        config.write_text(config.read_text() + "cache: {tiers: [disk]}\n")
        async with running(tmp_path, config) as (process, disk):
            address = (await ready(process)).split()[3].rstrip(",")
            async with grpc.aio.insecure_channel(address) as channel:
                generate = InferenceServiceStub(channel).Generate

                async def ask(prompt: str) -> pb.GenerateResponse:
                    request = pb.GenerateRequest(prompt=prompt, temperature=0)
                    answer = await generate(request, timeout=WAIT_S)
                    assert answer.text == prompt
                    return answer

                async def is_kept(prompt: str) -> None:
                    async with asyncio.timeout(WAIT_S):
                        while (await ask(prompt)).route.cache != pb.CACHE_RESULT_HIT:
                            pass

                await is_kept("before")
                disk.fill()
                for prompt in [f"{number} {text}" for number in range(2) for text in ("short", _LARGE)]:
                    for _ in range(2):
                        assert (await ask(prompt)).route.cache != pb.CACHE_RESULT_HIT
                disk.free()
                await is_kept("afterwards")
        assert echo.open == 0
