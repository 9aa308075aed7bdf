"""Measures one router process beside several on the same cores, with few connections and with many."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.rig.processes import Running, connected, free_port, started, wait
from benchmarks.rig.programs import CannotRun, Target, Upstream, build, load, upstream
from benchmarks.rig.workload import MODEL, UNIQUE, Ask

_WARM_S: Final = 2.0
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_ASK: Final = Ask(16, slot=UNIQUE)


@dataclass(frozen=True, slots=True)
class Setting:
    """A server: how many router processes, and how old connections get, in seconds; None is the default."""

    workers: int
    age_s: float | None = None

    def __str__(self) -> str:
        age = "" if self.age_s is None else f", connections of {self.age_s:g} s"
        return f"{self.workers} process{'es' if self.workers > 1 else ''}{age}"


@dataclass(frozen=True, slots=True)
class Round:
    """What one load showed: answers a second, of a second of processor time, and the busiest process's part of that."""

    per_s: float
    per_cpu_s: float
    p99_us: float
    busiest: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for and prints a table; returns 0, or 1 where it cannot run."""
    options = _parser().parse_args(arguments)
    settings = [Setting(1), Setting(options.workers), Setting(options.workers, options.age)]
    seeds = itertools.count(1)
    found: dict[tuple[Setting, int], list[Round]] = {}
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            build(folder)
            with upstream(folder) as model:
                for _ in range(options.rounds):
                    for setting in settings:
                        with _serving(folder, setting, model, options.cores) as (port, running):
                            for connections in options.connections:
                                target = Target("grpc", port, _ASK)
                                load(folder, target, options.callers, _WARM_S, next(seeds), connections=connections)
                                round = _measured(folder, target, running, options, connections, next(seeds))
                                found.setdefault((setting, connections), []).append(round)
    except CannotRun as error:
        print(f"benchmarks.workers: {error}", file=sys.stderr)
        return 1
    print(_table(found, options))
    return 0


@contextmanager
def _serving(folder: Path, setting: Setting, model: Upstream, cores: str) -> Iterator[tuple[int, Running]]:
    place = Path(tempfile.mkdtemp(dir=folder))
    limits = {} if setting.age_s is None else {"limits": {"max_connection_age": setting.age_s}}
    deployment = {"id": MODEL, "type": "remote", "base_url": f"http://127.0.0.1:{model.port}", "max_concurrency": 4096}
    config = place / "models.yaml"
    config.write_text(json.dumps({"models": [deployment], **limits}))
    grpc, http, admin = free_port(), free_port(), free_port()
    faces = {"grpc": grpc, "http": http, "admin": admin}
    addresses = [f"--{face}-address=127.0.0.1:{port}" for face, port in faces.items()]
    environ = {
        "POLYROUTE_CACHE_DIR": str(place / "cache"),
        "POLYROUTE_STATE_URL": f"sqlite:///{place / 'state.db'}",
        "POLYROUTE_WORKERS": str(setting.workers),
    }
    command = [sys.executable, "-m", "polyroute.server", f"--config={config}", *addresses]
    with started(command, environ, cores=cores, log=place / "log") as running:
        wait(lambda: _ready(place / "log", grpc), running, str(setting))
        yield grpc, running


def _ready(log: Path, port: int) -> None:
    """Raises `OSError` until all processes of the server answer."""
    if "polyroute ready" not in log.read_text():
        raise OSError
    connected(port)


def _measured(
    folder: Path, target: Target, running: Running, options: argparse.Namespace, connections: int, seed: int
) -> Round:
    before = _cpu_of(running.pid)
    figures = load(folder, target, options.callers, options.seconds, seed, connections=connections)
    used = [now - before.get(pid, 0.0) for pid, now in _cpu_of(running.pid).items()]
    return Round(figures.per_s, figures.all / sum(used), figures.p99_us, max(used) / sum(used))


def _cpu_of(session: int) -> dict[int, float]:
    """Processor seconds of each process of a session, by its ID; places are of proc(5)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if stat[3] == str(session):
            found[int(path.parent.name)] = (int(stat[11]) + int(stat[12])) * _TICK_S
    return found


def _table(found: dict[tuple[Setting, int], list[Round]], options: argparse.Namespace) -> str:
    columns = ("processes", "connections", "answers/s", "beside one", "answers/CPU s", "p99 ms", "busiest process")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for (setting, connections), rounds in found.items():
        per_s = statistics.median(round.per_s for round in rounds)
        one = statistics.median(round.per_s for round in found[Setting(1), connections])
        cpu = statistics.median(round.per_cpu_s for round in rounds)
        p99 = statistics.median(round.p99_us for round in rounds) / 1000
        busiest = statistics.median(round.busiest for round in rounds)
        lines.append(
            f"| {setting} | {connections} | {per_s:,.0f} | {per_s / one:.2f} | {cpu:,.0f} | {p99:.1f} | {busiest:.0%} |"
        )
    load = f"{options.callers} callers, {options.seconds:g} s, medians of {options.rounds} rounds"
    head = f"{load}; servers on cores {options.cores}"
    return "\n".join([head, "", *lines])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-workers ARGS=...", description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="router processes (default %(default)s)")
    parser.add_argument("--age", type=float, default=0.5, help="max_connection_age of the third row, in seconds")
    parser.add_argument("--callers", type=int, default=64, help="callers at once (default %(default)s)")
    parser.add_argument("--connections", type=int, nargs="+", default=[64, 4, 1], help="default 64 4 1")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--cores", default="0,1", help="cores of the server; core 1 also has the load (default 0,1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
