"""The programs in C: built once a run; the load generator's figures, and what the peer has seen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.rig.workload import Ask

_HERE: Final = Path(__file__).parent
_SOURCES: Final = {"load": ("load.c", "http.c", "grpc.c"), "upstream": ("upstream.c",)}
_OVERTIME_S: Final = 90.0
PEER_CORE: Final = max(os.sched_getaffinity(0))
"""The core of the load generator and of the peer, the last one; servers have core 0."""


class CannotRun(Exception):
    """Something that the benchmark needs is missing or has failed; the text says what."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run under load showed.

    Rates are of what came within the time that counts, `answers` those asked for in it, `all` also those of the
    warm-up. Times are in microseconds: until the whole answer, and until its first word (`first_`). `bytes` is the
    mean size of an answer.
    """

    answers: int
    all: int
    per_s: float
    words_per_s: float
    bytes: float
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float
    first_mean_us: float
    first_p50_us: float
    first_p90_us: float
    first_p99_us: float
    first_max_us: float


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: a port that speaks `protocol`, `grpc` or `http`, and what is asked there.

    `keys` is how many different questions there are, where the question has a number that is drawn; `path` is where it
    is sent, where that is not the usual place.
    """

    protocol: str
    port: int
    ask: Ask
    keys: int = 1
    path: str = ""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The peer in C, at a port."""

    port: int

    def seen(self) -> Seen:
        """What it has seen so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models", timeout=30) as answer:
            told = json.load(answer)
        return Seen(told["posts"], told["open"], told["left"])


@dataclass(frozen=True, slots=True)
class Seen:
    """Requests that have come, paced streams that go on, and those whose reader left before their end."""

    posts: int
    open: int
    left: int


def build(folder: Path) -> None:
    """Compiles both programs into `folder`; raises `CannotRun`."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise CannotRun("there is no C compiler: install gcc or clang, so that `cc` is found")
    for name, sources in _SOURCES.items():
        command = [compiler, "-O2", "-o", str(folder / name), *(str(_HERE / source) for source in sources)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotRun(f"{name} does not compile: {done.stderr.strip()}")


def load(
    folder: Path, target: Target, callers: int, seconds: float, seed: int, *, connections: int | None = None
) -> Figures:
    """Puts a target under load. No two runs with one `seed` should ask unique questions of one server.

    Each caller has a connection of its own, unless there are fewer `connections`, over gRPC. Raises `CannotRun` where
    an answer was none, or was not complete.
    """
    command = _command(folder, target, callers, connections or callers, f"{seconds:g}", seed)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 1.1 + _OVERTIME_S, check=False)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"the load on port {target.port} did not end in time") from None
    if done.returncode:
        raise CannotRun(done.stderr.strip() or f"load ended with {done.returncode}")
    return Figures(**json.loads(done.stdout))


@contextmanager
def held(folder: Path, target: Target, streams: int, connections: int, seed: int) -> Iterator[None]:
    """Holds streams open, each of which has had its first word; raises `CannotRun`."""
    command = _command(folder, target, streams, connections, "hold", seed)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        if not process.stdout.readline():
            raise CannotRun(process.stderr.read().strip() or "the load ended before its streams were open")
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(_OVERTIME_S)


@contextmanager
def upstream(folder: Path) -> Iterator[Upstream]:
    """The peer that answers as requests ask it to."""
    command = [*_pinned(), str(folder / "upstream")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Upstream(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


def _command(folder: Path, target: Target, callers: int, connections: int, until: str, seed: int) -> Sequence[str]:
    body = folder / "request.body"
    body.write_bytes(target.ask.body(target.protocol))
    where = (target.protocol, target.port, target.path or target.ask.path(target.protocol), body)
    how = (callers, connections, until, target.keys, seed, target.ask.words)
    return [*_pinned(), str(folder / "load"), *map(str, (*where, *how))]


def _pinned() -> list[str]:
    return ["taskset", "-c", str(PEER_CORE)]
