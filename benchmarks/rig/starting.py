"""Programs of ours in processes of their own, floors among them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rig.processes import Running, started
from benchmarks.rig.programs import CannotRun


@contextmanager
def of_ours(command: list[str], what: str) -> Iterator[tuple[dict[str, int], Running]]:
    """A program of ours that prints its ports as JSON once it is ready; raises `CannotRun` where it ends instead."""
    environ = {"GRPC_ENABLE_FORK_SUPPORT": "0"}
    with started([sys.executable, "-m", *command], environ, until_stdin=True) as running:
        assert running.output is not None
        line = running.output.readline()
        if not line:
            raise CannotRun(f"{what} ended before it was ready")
        yield json.loads(line), running


@contextmanager
def floor(name: str, upstream: int = 0, answer: Path | None = None) -> Iterator[tuple[dict[str, int], Running]]:
    """A floor of `benchmarks.rig.floors`: its ports by protocol, and its process."""
    command = ["benchmarks.rig.floors", name, str(upstream), str(answer or "")]
    with of_ours(command, name) as served:
        yield served
