"""Measures what the router costs a call, beside bare servers, no router, and other routers: in turns, on one core."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.rig import peers, programs
from benchmarks.rig.collector import collector
from benchmarks.rig.floors import FLOORS
from benchmarks.rig.programs import CannotRun
from benchmarks.router import machine, summary, table
from benchmarks.router.cases import DIRECT, OURS, OURS_DISK, PEERS, TITLES, chosen
from benchmarks.router.contenders import Place, everyone
from benchmarks.router.rounds import Found, Plan, measure, say

_QUICK: Final = {"callers": [2], "rounds": 1, "seconds": 0.3, "keys": 20}
_GROUPS: Final = {"floor": (*FLOORS, DIRECT), "ours": (OURS, OURS_DISK), "peers": PEERS}
_PROTOCOLS: Final = {"grpc": "grpc", "rest": "http"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line asks for and prints tables; returns 1 where something could not be measured."""
    options = _parser().parse_args(arguments)
    if options.quick:
        for name, value in _QUICK.items():
            setattr(options, name, value)
    if shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        say("this needs two cores and taskset (util-linux)")
        return 1
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # thousands of callers, each with a connection
    plan = _plan(options)
    with tempfile.TemporaryDirectory(prefix="bench-router-", dir=options.folder) as folder:
        try:
            found = _measure(Path(folder), plan, options)
        except CannotRun as error:
            say(f"cannot go on: {error}")
            return 1
    lines = summary.lines(found)
    print(table.markdown(lines), flush=True)
    if options.json:
        options.json.write_text(json.dumps(_as_json(plan, found, lines), indent=1) + "\n")
    return int(bool(found.failures))


def _measure(folder: Path, plan: Plan, options: argparse.Namespace) -> Found:
    os.sched_setaffinity(0, {programs.PEER_CORE})  # spans arrive here
    programs.build(folder)
    with programs.upstream(folder) as upstream, collector() as spans:
        return measure(plan, Place(folder, upstream, spans, options.peers))


def _plan(options: argparse.Namespace) -> Plan:
    protocols = [_PROTOCOLS[name] for name in options.over]
    return Plan(
        chosen(options.cases, protocols),
        options.contenders,
        options.rounds,
        options.seconds,
        options.keys,
        options.callers,
    )


def _as_json(plan: Plan, found: Found, lines: Sequence[summary.Line]) -> dict[str, Any]:
    cells = [
        {"case": case.name, "protocol": case.protocol, "callers": callers, "contender": name}
        | {"rounds": [asdict(sample) for sample in samples]}
        for (case, callers, name), samples in found.samples.items()
    ]
    run = {"rounds": plan.rounds, "seconds": plan.seconds, "command": " ".join(sys.argv[1:])}
    return {
        "machine": asdict(machine.this_machine()),
        "run": run,
        "lines": [asdict(line) for line in lines],
        "cells": cells,
        "failures": found.failures,
    }


def _names(text: str) -> list[str]:
    """Contenders by name or by group; raises `ArgumentTypeError`."""
    names: list[str] = []
    for part in text.split(","):
        if part not in _GROUPS and part not in everyone():
            raise argparse.ArgumentTypeError(f"`{part}` is none of {', '.join((*_GROUPS, *everyone()))}")
        names += _GROUPS.get(part, (part,))
    return names


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _some_of(known: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        for part in text.split(","):
            if part not in known:
                raise argparse.ArgumentTypeError(f"`{part}` is none of {', '.join(known)}")
        return text.split(",")

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.router", description=__doc__)
    add = parser.add_argument
    add("--cases", type=_some_of([*TITLES]), default=[*TITLES], help=f"of {','.join(TITLES)} (default: all)")
    add("--over", type=_some_of([*_PROTOCOLS]), default=[*_PROTOCOLS], help="grpc, rest (default: both)")
    add(
        "--contenders",
        type=_names,
        default=_names("floor,ours"),
        help="groups or names, comma separated: floor, ours, peers (default: floor,ours)",
    )
    add("--callers", type=_numbers, default=[], help="numbers, comma separated (default: those of each case)")
    add("--rounds", type=int, default=5, help="how often each is measured; medians count (default: %(default)s)")
    add("--seconds", type=float, default=2.0, help="of each load (default: %(default)s)")
    add("--keys", type=int, default=500, help="questions whose answers caches hold (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures of all rounds there too")
    add("--folder", type=Path, help="where servers keep their files meanwhile (default: the system's)")
    add("--peers", type=Path, default=peers.FOLDER, help="where peers are installed (default: %(default)s)")
    add("--quick", action="store_true", help="short: shows that all runs, measures nothing")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    sys.exit(main())
