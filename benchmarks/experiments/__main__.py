"""Prints what repeated looks cost, and how rollouts end: `python -m benchmarks.experiments`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.experiments.looking import alarms, row
from benchmarks.experiments.rollouts import gated, rolled_out, table

_COMPARED = (("5% and 5%", 0.05, 0.05), ("5% and 8%", 0.05, 0.08))
_ROLLOUTS = (("Rollouts by bets on pairs", rolled_out), ("Rollouts by a gate of fixed windows", gated))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints tables; always returns 0. Equal arguments give equal tables."""
    parser = argparse.ArgumentParser(prog="benchmarks.experiments", description=__doc__)
    parser.add_argument("--looks", type=int, default=2_000, help="runs in which two variants are compared")
    parser.add_argument("--calls", type=int, default=5_000, help="calls of each variant in one of these runs")
    parser.add_argument("--rollouts", type=int, default=400, help="rollouts of each version at each rate")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    for title, control, treatment in _COMPARED:
        most, runs = f"{options.calls:,}", f"{options.looks:,}"
        print(f"\nFailing {title}, looked at after every call up to {most} a variant, {runs} runs:\n")
        print("| test | alarms | median calls a variant | 90% |\n|---|---:|---:|---:|")
        for name, at in alarms(treatment, control, options.calls, options.looks, options.seed).items():
            print(row(name, at, options.looks), flush=True)
    for title, run in _ROLLOUTS:
        print(f"\n{title}, {options.rollouts} each; minutes are medians, and in brackets 9 in 10 took no longer:\n")
        print("| new version | calls a minute | rolled back | promoted | minutes to roll back | to promote | calls |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for line in table(run, options.rollouts, options.seed):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
