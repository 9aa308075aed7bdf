"""The figures as a table: medians of the rounds, and each against its floor."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import fields
from typing import TypeAlias

from benchmarks.rig.programs import Figures

Row: TypeAlias = tuple[str, str, int]
"""Contender, protocol and number of callers."""


def median(rounds: Sequence[Figures]) -> Figures:
    """Each figure's median."""
    return Figures(**{f.name: statistics.median(getattr(one, f.name) for one in rounds) for f in fields(Figures)})


def markdown(found: dict[Row, list[Figures]], callers: Sequence[int]) -> str:
    """A line for each contender and protocol, with columns for each number of callers."""
    lines = ["| answers from | over | " + " | ".join(_heads(callers)) + " |"]
    lines += ["|---|---|" + "---:|" * (4 * len(callers))]
    for name, protocol in dict.fromkeys((name, protocol) for name, protocol, _ in found):
        cells = []
        for number in callers:
            rounds, floor = found.get((name, protocol, number)), found.get((f"{protocol} echo", protocol, number))
            cells += _cells(median(rounds), median(floor) if floor else None) if rounds else ["-"] * 4
        lines.append(f"| {name} | {protocol} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _heads(callers: Sequence[int]) -> list[str]:
    return [head for n in callers for head in (f"{n}: a second", "p50, us", "p99, us", "times the echo")]


def _cells(figures: Figures, floor: Figures | None) -> list[str]:
    cost = f"{floor.per_s / figures.per_s:.2f}" if floor else "-"
    return [f"{figures.per_s:,.0f}", f"{figures.p50_us:,.0f}", f"{figures.p99_us:,.0f}", cost]
