"""Whether the router has become slower: what a second of processor gives beside the floor, with room for noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.router.cases import OURS
from benchmarks.router.summary import Line

BOUNDS: Final = {
    ("unary-miss", "grpc"): 0.32,
    ("unary-miss", "http"): 0.22,
    ("memory-hit", "grpc"): 0.42,
    ("memory-hit", "http"): 0.25,
    ("stream-burst", "grpc"): 1.6,
    ("stream-burst", "http"): 0.37,
}
"""By case and protocol: the least that ours may give of what the floor gives, both for a second of processor.

Two thirds of what docs/benchmarks.md has, for a machine that others use too."""
CALLERS: Final = 32


def broken(lines: Sequence[Line]) -> list[str]:
    """A sentence for each bound that does not hold, or that was not measured."""
    found = {
        (line.case.name, line.case.protocol): line.of_floor_by_cpu
        for line in lines
        if line.name == OURS and line.callers == CALLERS
    }
    said = []
    for (name, protocol), bound in BOUNDS.items():
        ratio = found.get((name, protocol))
        if ratio is None:
            said.append(f"{name}, {protocol}: not measured")
        elif ratio < bound:
            said.append(f"{name}, {protocol}: {ratio:.2f} of the floor for a second of processor, at least {bound:.2f}")
    return said
