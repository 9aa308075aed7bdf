"""From times of tokens to the figures of the table; medians over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.engine.workload import Case


@dataclass(frozen=True)
class Figures:
    """One engine under one load. Latencies are in milliseconds: to the first token, and between two tokens."""

    tokens_per_s: float
    first_p50: float
    first_p99: float
    between_p50: float
    between_p99: float
    peak_mb: float

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def of(case: Case, reply: dict[str, Any]) -> Figures:
    """The figures of one round."""
    began, times = reply["began"][: case.watched], reply["times"][: case.watched]
    first = [(stamps[0] - start) * 1e3 for start, stamps in zip(began, times, strict=True)]
    between = [(later - earlier) * 1e3 for stamps in times for earlier, later in pairwise(stamps)]
    return Figures(
        tokens_per_s=case.output_tokens / reply["wall_s"],
        first_p50=quantile(first, 0.5),
        first_p99=quantile(first, 0.99),
        between_p50=quantile(between, 0.5),
        between_p99=quantile(between, 0.99),
        peak_mb=reply["peak_mb"],
    )


def medians(rounds: Sequence[Figures]) -> Figures:
    """Each figure's median."""
    columns = zip(*(figures.as_dict().values() for figures in rounds), strict=True)
    return Figures(*(median(column) for column in columns))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie, by nearest rank; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
