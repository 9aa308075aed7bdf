"""Prints what the registry costs at several sizes, each in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.registry.measure import ROWS, Figures, measure

SIZES = (10, 1000, 10_000)


def main(arguments: list[str] | None = None) -> None:
    """Measures every size and prints a table; `--one` measures one size in this process and prints JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registry", description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=SIZES, help="sizes; a tenth as many routes")
    parser.add_argument("--calls", type=int, default=20_000, help="lookups whose mean is taken")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asdict(asyncio.run(measure(given.models[0], given.calls, Path(folder))))))
        return
    columns = [_apart(size, given.calls) for size in given.models]
    print(json.dumps([asdict(column) for column in columns], indent=2) if given.json else table(columns))


def table(columns: list[Figures]) -> str:
    """The figures as a table in Markdown, a size a column."""
    rows = [("", *(f"{column.models:,} models, {column.routes:,} routes" for column in columns))]
    rows += [("---", *("---:" for _ in columns))]
    rows += [(what, *(f"{getattr(column, name):.3g}" for column in columns)) for name, what in ROWS.items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _apart(models: int, calls: int) -> Figures:
    command = [sys.executable, "-m", "benchmarks.registry", "--one", "--models", str(models), "--calls", str(calls)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=dict(os.environ))
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
