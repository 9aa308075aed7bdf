"""What an experiment has shown, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from polyroute.routing.experiments.interval import Interval
from polyroute.routing.experiments.tally import Worst

NEVER: Final = 1_000_000_000
"""`Comparison.needed` of a decision that is not to be expected."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant as it is configured now; `share` is its part of the traffic, 0 to 1."""

    name: str
    model: str
    share: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """One metric of one variant; `count` observations."""

    metric: str
    unit: str
    interval: Interval
    count: int


@dataclass(frozen=True, slots=True)
class ArmReport:
    """One variant: what is counted is of its latest version alone. `answers` are calls that are evidence."""

    name: str
    model: str
    version: str
    share: float
    answers: int
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The variant's mean less the control's. `needed` is about how many observations more a decision takes, 0 where
    there is one; `log_e` the logarithm of the e-value against "there is no difference"."""

    metric: str
    variant: str
    control: str
    interval: Interval
    log_e: float
    guardrail: bool
    variant_count: int
    control_count: int
    needed: int

    @property
    def decided(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return 0.0 not in self.interval


@dataclass(frozen=True, slots=True)
class Point:
    """An interval as it stood at a time, `at` in Unix time."""

    at: float
    interval: Interval
    count: int


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one variant over time."""

    variant: str
    metric: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class ShadowFindings:
    """What the copies at one deployment showed. `figures` are shares and means with their intervals, by name; ratios
    are geometric means of the copy's over the caller's. `missing` counts copies without a comparison, by cause."""

    deployment: str
    version: str
    pairs: int
    exact_matches: int
    mean_edit_distance: float
    figures: dict[str, Interval]
    missing: dict[str, int]
    worst: tuple[Worst, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What an experiment has shown so far. `log_e_mismatch` speaks against "traffic was split as configured".

    `pinned` is what callers said of the variants that they had pinned, such as people who saw answers side by side.
    """

    route: str
    summary: str
    split_ok: bool
    log_e_mismatch: float
    arms: tuple[ArmReport, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    series: tuple[Series, ...] = ()
    shadows: tuple[ShadowFindings, ...] = ()
    pinned: tuple[ArmReport, ...] = ()
