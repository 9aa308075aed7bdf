"""`python -m benchmarks.metrics`: what metrics cost a call, and what a scrape costs with many models."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from benchmarks.metrics.measure import COLUMNS, measure


def main() -> None:
    """Measures each number of models in turn, and prints one table."""
    parser = argparse.ArgumentParser(prog="benchmarks.metrics", description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--calls", type=int, default=100_000, help="calls that a mean is of")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = [asdict(measure(models, options.calls)) for models in options.models]
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print("| |" + "".join(f" {each['models']:,} models |" for each in figures))
    print("|---|" + "---:|" * len(figures))
    for name, title in COLUMNS.items():
        print(f"| {title} |" + "".join(f" {each[name]:,.3g} |" for each in figures))


if __name__ == "__main__":
    main()
