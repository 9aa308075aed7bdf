"""`python -m benchmarks.records`: see `benchmarks/README.md`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
from pathlib import Path

import structlog

from benchmarks.records.calls import beside
from benchmarks.records.rows import report_over
from benchmarks.records.sockets import over_sockets


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each half of a paired run (60)")
    parser.add_argument("--rate", type=int, default=1000, help="calls a second (1000)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows that the report reads (1,000,000)")
    parser.add_argument("--only", choices=("records", "shadow", "sockets", "report"), help="one of them")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs of calls over sockets, of each kind (2000)")
    parser.add_argument("--quick", action="store_true", help="try it: 3 s, 100 pairs, 20,000 rows")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.pairs, options.rows = 3.0, 100, 20_000
    return options


async def _main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("records", "shadow"):
            if options.only in (None, kind):
                print(await beside(kind, Path(folder) / kind, options.rate, options.seconds), flush=True)
        if options.only in (None, "sockets"):
            print(await over_sockets(options.pairs, Path(folder) / "sockets"), flush=True)
        if options.only in (None, "report"):
            print(await report_over(options.rows, Path(folder) / "report"), flush=True)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    asyncio.run(_main(_options()))
