"""Rounds brought down to medians with their spread, and what each contender is beside the floor, us and no router."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.router.cases import CASES, DIRECT, OURS, OURS_DISK, Case
from benchmarks.router.rounds import Cell, Found, Sample


@dataclass(frozen=True, slots=True)
class Spread:
    """A median of rounds, and the quartiles around it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Line:
    """A contender under one load.

    `rate` is of answers a second, or of words where the case counts those; `cpu_us` is its processor time for one of
    them, None of the upstream itself. `of_floor` and `ours_is` compare rates round by round (the median of the
    ratios), this one's to the floor's and ours to this one's; `..._by_cpu` compare what a second of processor gives.
    `added_first_us` is how much later than without a router the first word comes. What was not measured is None.
    """

    case: Case
    callers: int
    name: str
    rounds: int
    rate: Spread
    p50_us: float
    p99_us: float
    first_us: float
    cpu_us: Spread | None
    of_floor: float | None
    of_floor_by_cpu: float | None
    ours_is: float | None
    ours_is_by_cpu: float | None
    added_first_us: float | None


def lines(found: Found) -> list[Line]:
    """A line for each cell, in the order of the cases and of who takes part in them."""
    return [_line(cell, found) for cell in sorted(found.samples, key=_place)]


def rate(case: Case, sample: Sample) -> float:
    """Answers a second, or words where the case counts those."""
    return sample.figures.words_per_s if case.by_words else sample.figures.per_s


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles; of fewer than three values, their ends."""
    low, _, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 2 else (min(values), 0, max(values))
    )
    return Spread(statistics.median(values), low, high)


def _place(cell: Cell) -> tuple[int, int, int]:
    case, callers, name = cell
    return CASES.index(case), callers, (*case.floors, *case.contenders).index(name)


def _line(cell: Cell, found: Found) -> Line:
    case, callers, name = cell
    samples = found.samples[cell]

    def beside(other: str, of: Callable[[Sample], float]) -> float | None:
        """The median of this one's figures over the other's, round by round."""
        theirs = found.samples.get((case, callers, other), [])
        pairs = [(of(mine), of(its)) for mine, its in zip(samples, theirs, strict=False)]
        return statistics.median(mine / its for mine, its in pairs) if pairs and all(its for _, its in pairs) else None

    def inverse(ratio: float | None) -> float | None:
        return 1 / ratio if ratio else None

    ours = OURS_DISK if OURS_DISK in case.contenders else OURS
    units = case.ask.words if case.by_words else 1
    first = statistics.median(sample.figures.first_p50_us for sample in samples)
    direct = found.samples.get((case, callers, DIRECT))
    return Line(
        case,
        callers,
        name,
        len(samples),
        spread([rate(case, sample) for sample in samples]),
        statistics.median(sample.figures.p50_us for sample in samples),
        statistics.median(sample.figures.p99_us for sample in samples),
        first,
        spread([sample.cpu_us / units for sample in samples]) if name != DIRECT else None,
        beside(case.floors[0], lambda sample: rate(case, sample)),
        inverse(beside(case.floors[0], lambda sample: sample.cpu_us)),
        inverse(beside(ours, lambda sample: rate(case, sample))) if name != ours else None,
        beside(ours, lambda sample: sample.cpu_us) if name != ours else None,
        first - statistics.median(s.figures.first_p50_us for s in direct) if direct and name != DIRECT else None,
    )
