"""A Redis of a test's own: started from Debian's package, and stopped, killed, filled and started again at will."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import redis

_WAIT_S = 60.0


def program() -> str:
    """Where `redis-server` is; skips the test where it is not installed, or fails it where CI=true."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail("redis-server is not installed; tests/packages.txt names what the tests need")
    pytest.skip("redis-server is not installed")


class RedisServer:
    """One server on a free port, with nothing on disk: what it held is gone when it is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = program()
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:secret-word@127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A plain client, of the test."""
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Returns once it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        options += ["--dir", str(self._folder), "--requirepass", "secret-word"]
        self._process = subprocess.Popen([self._program, *options], stdout=subprocess.DEVNULL)
        until = time.monotonic() + _WAIT_S
        while True:
            with suppress(redis.ConnectionError), closing(self.client()) as client:
                client.ping()
                return
            assert self._process.poll() is None, "redis-server has ended"
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """Ends it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_WAIT_S)
            self._process = None

    def pause(self) -> None:
        """From now on it takes connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It answers again, also what came meanwhile."""
        self._signal(signal.SIGCONT)

    def fill(self) -> None:
        """From now on it refuses every write for want of memory."""
        with closing(self.client()) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "1mb")

    def free(self) -> None:
        """Writes work again."""
        with closing(self.client()) as client:
            client.config_set("maxmemory", "0")

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A server that is running."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
