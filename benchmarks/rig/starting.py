"""Programs of ours in processes of their own, floors among them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rig.processes import SERVER_CORES, Running, started
from benchmarks.rig.programs import CannotRun


@contextmanager
def of_ours(command: list[str], what: str, cores: str = SERVER_CORES) -> Iterator[tuple[dict[str, int], Running]]:
    """A program of ours that prints its ports as JSON once it is ready; raises `CannotRun` where it ends instead."""
    environ = {"GRPC_ENABLE_FORK_SUPPORT": "0"}
    with started([sys.executable, "-m", *command], environ, cores=cores, until_stdin=True) as running:
        assert running.output is not None
        line = running.output.readline()
        if not line:
            raise CannotRun(f"{what} ended before it was ready")
        yield json.loads(line), running


@contextmanager
def floor(
    name: str, upstream: int = 0, answer: Path | None = None, *, port: int = 0, cores: str = SERVER_CORES
) -> Iterator[tuple[dict[str, int], Running]]:
    """A floor of `benchmarks.rig.floors`: its ports by protocol, and its process; a `port` may be another floor's."""
    command = ["benchmarks.rig.floors", name, str(upstream), str(answer or ""), str(port)]
    with of_ours(command, name, cores) as served:
        yield served
