"""Always-valid intervals around a mean of anything, such as a rating, and around the difference of two means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from polyroute.routing.experiments.interval import Interval, check_alpha

_TUNED_FOR: Final = 1_000
"""Observations at which the intervals are narrowest; at others they are valid as well."""

_ROUNDING: Final = 1e-9
"""Parts of a mean by which sums in floating point may be wrong, with room to spare."""

LEAST: Final = 10
"""Observations before which nothing is said: what holds in the limit needs some."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Observations by their number, mean and variance (of the population, 0 or more): all that the intervals need."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    @classmethod
    def of_sums(cls, count: int, total: float, squares: float) -> Sample:
        """From the sum of the observations and the sum of their squares."""
        if count == 0:
            return cls()
        mean = total / count
        return cls(count, mean, max(0.0, squares / count - mean * mean))

    @classmethod
    def of_successes(cls, successes: int, trials: int) -> Sample:
        """From successes, which count 1, and failures, which count 0.

        The variance is that of one success and one failure more, so that it is never 0 for want of one or the other.
        """
        if trials == 0:
            return cls()
        smooth = (successes + 1) / (trials + 2)
        return cls(trials, successes / trials, smooth * (1 - smooth))

    def with_value(self, value: float) -> Sample:
        """These and one more (Welford's update)."""
        count = self.count + 1
        mean = self.mean + (value - self.mean) / count
        return Sample(count, mean, self.variance + ((value - self.mean) * (value - mean) - self.variance) / count)


def interval(sample: Sample, alpha: float) -> Interval:
    """The look at an asymptotic confidence sequence for the mean; without ends before ten observations.

    I. Waudby-Smith, D. Arbour, R. Sinha, E. Kennedy and A. Ramdas, "Time-uniform central limit theory and asymptotic
    confidence sequences", Annals of Statistics 52 (2024), theorem 2.2.
    """
    check_alpha(alpha)
    if sample.count < LEAST:
        return Interval(sample.mean, -math.inf, math.inf)
    width = math.sqrt(sample.variance / sample.count) * _factor(sample.count, alpha)
    return Interval(sample.mean, sample.mean - width, sample.mean + width)


def difference(treatment: Sample, control: Sample, alpha: float) -> Interval:
    """The look at an asymptotic confidence sequence for the treatment's mean less the control's.

    As `interval`, with the variance of a difference of independent means; without ends before ten observations each.
    """
    check_alpha(alpha)
    estimate = treatment.mean - control.mean
    if min(treatment.count, control.count) < LEAST:
        return Interval(estimate, -math.inf, math.inf)
    variance = _variance(treatment, control)
    width = math.sqrt(variance) * _factor(treatment.count + control.count, alpha)
    return Interval(estimate, estimate - width, estimate + width)


def log_e_positive(treatment: Sample, control: Sample, beyond: float = 0.0) -> float:
    """The logarithm of an asymptotic e-value against "the difference of the means is at most `beyond`".

    The mixture of `difference` over positive differences alone. 0 before ten observations each.
    """
    if min(treatment.count, control.count) < LEAST:
        return 0.0
    variance = _variance(treatment, control)
    excess = treatment.mean - control.mean - beyond
    if variance == 0:
        return math.inf if excess > 0 else 0.0
    spread = _spread(treatment.count + control.count)
    z = excess / math.sqrt(variance) * math.sqrt(spread / (spread + 1))
    positive = math.erfc(-z / math.sqrt(2))
    return math.log(positive) + z * z / 2 - 0.5 * math.log1p(spread) if positive else -math.inf


def needed(treatment: Sample, control: Sample, alpha: float, margin: float | None = None) -> int:
    """About how many observations more, of both together, until a decision; 0 when there is one.

    A decision is an interval without 0, or with `margin` one that lies wholly below it. It is supposed that means,
    variances and shares stay as they are; at most a billion is returned, which stands for never.
    """
    most = 1_000_000_000
    total = treatment.count + control.count
    target = abs(treatment.mean - control.mean) if margin is None else margin - (treatment.mean - control.mean)
    if min(treatment.count, control.count) < LEAST or target <= 0:
        return most
    variance = total * _variance(treatment, control)
    low, high = total, total + most
    if math.sqrt(variance / low) * _factor(low, alpha) < target:
        return 0
    if math.sqrt(variance / high) * _factor(high, alpha) >= target:
        return most
    while high - low > 1:
        middle = (low + high) // 2
        if math.sqrt(variance / middle) * _factor(middle, alpha) < target:
            high = middle
        else:
            low = middle
    return high - total


def _variance(treatment: Sample, control: Sample) -> float:
    """That of the difference of the means; never so little that rounding of equal means looks like a difference."""
    rounding = _ROUNDING * max(abs(treatment.mean), abs(control.mean))
    return treatment.variance / treatment.count + control.variance / control.count + rounding * rounding


def _spread(count: int) -> float:
    """Observations in units of the mixing distribution: n rho squared."""
    return count * _RHO_SQUARED


def _factor(count: int, alpha: float) -> float:
    """Half the interval's width in standard errors."""
    spread = _spread(count)
    return math.sqrt(2 * (spread + 1) / spread * math.log(math.sqrt(spread + 1) / alpha))


def _rho_squared(alpha: float, count: int) -> float:
    """The mixing variance with which intervals are narrowest at `count` (the same, appendix)."""
    log = -2 * math.log(alpha)
    return (log + math.log(log) + 1) / count


_RHO_SQUARED: Final = _rho_squared(0.05, _TUNED_FOR)
