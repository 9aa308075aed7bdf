"""Prints what telemetry costs a call that is answered from the cache: servers side by side, asked in turn."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

import grpc.aio

from benchmarks.rig.collector import collector
from benchmarks.telemetry.server import MODES
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Row:
    """A mode's medians of all rounds, a call: processor time of the server, and time as the caller sees it."""

    mode: str
    cpu_us: float
    wall_us: float


@dataclass(frozen=True, slots=True)
class _Running:
    process: subprocess.Popen[str]
    address: str

    @property
    def cpu_s(self) -> float:
        """Processor time so far, of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S


async def measure(rounds: int, calls: int, callers: int) -> list[Row]:
    """Starts a server for each mode and asks them in turn, `calls` a round, `callers` at once."""
    with ExitStack() as ends, tempfile.TemporaryDirectory() as folder:
        endpoint = ends.enter_context(collector())
        servers = {mode: ends.enter_context(_server(mode, Path(folder) / mode, endpoint)) for mode in MODES}
        took: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
        for round in range(rounds + 1):
            for mode in MODES if round % 2 else reversed(MODES):
                figures = await _round(servers[mode], calls, callers)
                if round:  # the first one warms up
                    took[mode].append(figures)
    return [
        Row(mode, median(cpu for cpu, _ in figures) * 1e6, median(wall for _, wall in figures) * 1e6)
        for mode, figures in took.items()
    ]


async def _round(server: _Running, calls: int, callers: int) -> tuple[float, float]:
    """Processor time of the server, and time of the caller, in seconds a call."""
    request = pb.GenerateRequest(prompt="one two three four five six seven eight", model="m", temperature=0)
    async with grpc.aio.insecure_channel(server.address) as channel:
        generate = InferenceServiceStub(channel).Generate
        answer = await generate(request)

        async def ask() -> None:
            nonlocal answer
            for _ in range(calls // callers):
                answer = await generate(request)

        begun, cpu_s = time.perf_counter(), server.cpu_s
        await asyncio.gather(*(ask() for _ in range(callers)))
        wall_s, cpu_s = time.perf_counter() - begun, server.cpu_s - cpu_s
        if answer.route.cache != pb.CACHE_RESULT_HIT:
            raise SystemExit("the calls were not answered from the cache")
    return cpu_s / calls, wall_s * callers / calls


@contextmanager
def _server(mode: str, folder: Path, endpoint: str) -> Iterator[_Running]:
    command = [sys.executable, "-m", "benchmarks.telemetry.server", mode, str(folder), endpoint]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            yield _Running(process, process.stdout.readline().strip())
        finally:
            process.terminate()
            process.wait(30)


def table(rows: list[Row]) -> str:
    """The rows in Markdown, each with what it has more than the first."""
    bare = rows[0]
    lines = ["| | server, us of processor a call | caller, us a call |", "|---|---:|---:|"]
    for row in rows:
        cpu = "" if row is bare else f" ({100 * (row.cpu_us / bare.cpu_us - 1):+.0f}%)"
        wall = "" if row is bare else f" ({100 * (row.wall_us / bare.wall_us - 1):+.0f}%)"
        lines.append(f"| {MODES[row.mode]} | {row.cpu_us:.0f}{cpu} | {row.wall_us:.0f}{wall} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measures, and prints a table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds whose median is taken")
    parser.add_argument("--calls", type=int, default=2_000, help="calls a round and server")
    parser.add_argument("--callers", type=int, default=4, help="calls at once")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(arguments)
    rows = asyncio.run(measure(given.rounds, given.calls, given.callers))
    print(json.dumps([asdict(row) for row in rows], indent=2) if given.json else table(rows))


if __name__ == "__main__":
    main()
