"""Servers in processes of their own, on a core of their own, and what they take of the machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from benchmarks.rig.programs import CannotRun

ROOT: Final = Path(__file__).parents[2]
SERVER_CORES: Final = "0"
_START_S: Final = 120.0
_END_S: Final = 30.0
_LOOK_S: Final = 0.02
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_SESSION, _USER, _SYSTEM, _RSS = 3, 11, 12, 21  # places in /proc/PID/stat after the name (proc(5), 6, 14, 15 and 24)


@dataclass(frozen=True, slots=True)
class Running:
    """A server with all that it has started: they are one session. `output` is where a line of it can be read."""

    pid: int
    output: IO[str] | None = None

    @property
    def cpu_s(self) -> float:
        """Processor time so far, of all threads of all its processes that live."""
        return sum((int(stat[_USER]) + int(stat[_SYSTEM])) * _TICK_S for stat in self._stats())

    @property
    def rss_mb(self) -> float:
        """Resident memory of all its processes, in MB; pages that they share count for each."""
        return sum(int(stat[_RSS]) * _PAGE for stat in self._stats()) / 1e6

    @property
    def alive(self) -> bool:
        """Whether any of its processes lives."""
        return any(True for _ in self._stats())

    def _stats(self) -> Iterator[list[str]]:
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                stat = path.read_text().rpartition(")")[2].split()
                if stat[_SESSION] == str(self.pid):
                    yield stat


@contextmanager
def started(
    arguments: Sequence[str],
    environ: Mapping[str, str] | None = None,
    *,
    cores: str = SERVER_CORES,
    log: Path | None = None,
    until_stdin: bool = False,
) -> Iterator[Running]:
    """A server on its cores, ended with all that it started.

    What it says goes to `log`, or nowhere. With `until_stdin` it is one of ours that ends with its standard input, and
    whose standard output is there to be read.
    """
    with open(log or os.devnull, "wb") as said:
        process = subprocess.Popen(
            ["taskset", "-c", cores, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if until_stdin else said,
            stderr=None if until_stdin else said,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
    try:
        yield Running(process.pid, process.stdout)
    finally:
        _end(process, until_stdin)


def _end(process: subprocess.Popen[str], until_stdin: bool) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    if not until_stdin:
        process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has left behind, too
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def free_port() -> int:
    """A port that nothing listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(ready: Callable[[], Any], running: Running, what: str, seconds: float = _START_S) -> None:
    """Waits until `ready` raises no `OSError`; raises `CannotRun` where the process ends, or time does, before."""
    until = time.monotonic() + seconds
    while True:
        try:
            ready()
            return
        except OSError:  # those of urllib are such, too
            if not running.alive:
                raise CannotRun(f"{what} ended before it was ready") from None
            if time.monotonic() > until:
                raise CannotRun(f"{what} was not ready within {seconds:g} s") from None
            time.sleep(_LOOK_S)


def connected(port: int) -> None:
    """Connects, and leaves; raises `OSError` where nothing listens."""
    socket.create_connection(("127.0.0.1", port), 1).close()
