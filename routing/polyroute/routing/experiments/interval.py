"""An estimate with an interval that holds at every time at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

HALVINGS: Final = 40
"""Steps of a bisection: the ends of an interval within [-1, 1] are exact to 2e-12."""


@dataclass(frozen=True, slots=True)
class Interval:
    """One look at a confidence sequence: with probability 1 - alpha the truth lies in the interval of every look."""

    estimate: float
    lower: float
    upper: float

    def __contains__(self, value: float) -> bool:
        return self.lower <= value <= self.upper

    def within(self, least: float, most: float) -> Interval:
        """What of it lies between two bounds that the truth cannot leave."""
        return Interval(self.estimate, max(self.lower, least), min(self.upper, most))


def check_alpha(alpha: float) -> None:
    """Raises `ValueError` where `alpha` is no probability of error between 0 and 1."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha:g}; it must lie between 0 and 1")


def first_where(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where between `low` and `high` a property begins that holds from some point on: `low` where it holds there.

    From above, so that it holds at what is returned, or `high` is returned.
    """
    if holds(low):
        return low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def log_mean_exp(logs: list[float]) -> float:
    """The logarithm of the mean of numbers that are given by their logarithms."""
    most = max(logs)
    if most == -math.inf:
        return most
    return most + math.log(math.fsum(math.exp(each - most) for each in logs) / len(logs))
