"""Replays one trace of arrivals under each policy, over simulated replicas, and prints what callers would see."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.routing.figures import Figures, table
from benchmarks.routing.policies import POLICIES, Policy
from benchmarks.routing.simulation import Fleet, Simulation
from benchmarks.routing.trace import Workload, arrivals


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for and prints a table; returns 0."""
    options = _parser().parse_args(arguments)
    rows: dict[str, Figures] = {}
    for name in options.policy or POLICIES:
        began = time.perf_counter()
        rows[name] = simulate(POLICIES[name], options)
        print(f"{name}: {options.requests} requests in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    fleet = f"{options.replicas} replicas, one {options.slowness:g} times slower, one dead a tenth of the time"
    print(f"{options.requests} requests at {options.rate:g} a second; {fleet}; seed {options.seed}\n\n{table(rows)}")
    if options.json:
        report = {name: asdict(figures) for name, figures in rows.items()}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def simulate(policy: Policy, options: argparse.Namespace) -> Figures:
    """One policy over the trace, from the beginning: equal options give equal figures."""
    chance = random.Random(options.seed)
    fleet = Fleet(replicas=options.replicas, slowness=options.slowness)
    simulation = Simulation(policy.make(chance), fleet, chance)
    trace = arrivals(Workload(rate=options.rate), options.requests, options.seed, affinity=policy.affinity)
    tally = simulation.run(trace)
    return Figures.of(tally, tally.lasted, options.in_time)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-routing ARGS=...", description=__doc__)
    parser.add_argument("--requests", type=_positive, default=100_000, help="how many arrive (default %(default)s)")
    parser.add_argument("--rate", type=float, default=30.0, help="arrivals a second on average (default %(default)s)")
    parser.add_argument("--replicas", type=_several, default=8, help="default %(default)s")
    parser.add_argument("--slowness", type=float, default=2.5, help="of the slow one (default %(default)s times)")
    parser.add_argument("--in-time", type=float, default=2.0, help="first token in time, in s (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the trace and of all chance (default %(default)s)")
    parser.add_argument("--policy", action="append", choices=list(POLICIES), help="may be repeated (default: all)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    return parser


def _positive(text: str) -> int:
    return _at_least(1, text)


def _several(text: str) -> int:
    return _at_least(2, text)


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{value}; must be {least} or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
