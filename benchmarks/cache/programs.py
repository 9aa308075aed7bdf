"""The programs in C: built once a run, and the load generator's figures."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

_HERE: Final = Path(__file__).parent
_OVERTIME_S: Final = 30.0


class CannotRun(Exception):
    """Something that the benchmark needs is missing or has failed; the text says what."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run under load showed: times in microseconds, `bytes` of an answer."""

    answers: int
    per_s: float
    bytes: float
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and how they look: `body` holds the slot for a number below `keys`."""

    protocol: Literal["grpc", "http"]
    port: int
    path: str
    body: Path
    keys: int = 1


def build(folder: Path) -> None:
    """Compiles both programs into `folder`; raises `CannotRun`."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise CannotRun("there is no C compiler: install gcc or clang, so that `cc` is found")
    for name in ("load", "upstream"):
        command = [compiler, "-O2", "-o", str(folder / name), str(_HERE / f"{name}.c")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotRun(f"{name}.c does not compile: {done.stderr.strip()}")


def load(folder: Path, target: Target, callers: int, seconds: float, seed: int, prefix: tuple[str, ...]) -> Figures:
    """Puts a target under load; `prefix` goes before the command. Raises `CannotRun` where an answer was none."""
    command = [*prefix, str(folder / "load"), target.protocol, str(target.port), target.path, str(target.body)]
    command += [str(number) for number in (callers, seconds, target.keys, seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 1.1 + _OVERTIME_S, check=False)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"the load on port {target.port} did not end in time") from None
    if done.returncode:
        raise CannotRun(done.stderr.strip() or f"load ended with {done.returncode}")
    return Figures(**json.loads(done.stdout))


@contextmanager
def upstream(folder: Path, whole: bytes, stream: bytes, prefix: tuple[str, ...]) -> Iterator[int]:
    """A peer that answers everything with the same bytes; its port."""
    (folder / "whole").write_bytes(whole)
    (folder / "stream").write_bytes(stream)
    command = [*prefix, str(folder / "upstream"), str(folder / "whole"), str(folder / "stream")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()
