"""How traffic is shared between variants while it is learnt which one is best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

_POINTS: Final = 800
"""Points at which the beliefs are evaluated, over all that is believed in."""

_DEVIATIONS: Final = 7.0
"""Standard deviations around each belief beyond which nothing is believed in."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What is known of a variant: `trials` observations between 0 and 1 that add up to `rewards`; more is better."""

    rewards: float = 0.0
    trials: float = 0.0

    @property
    def alpha(self) -> float:
        """First parameter of the Beta distribution that is believed of the variant's mean, uniform at first."""
        return 1.0 + self.rewards

    @property
    def beta(self) -> float:
        """Its second parameter."""
        return 1.0 + max(0.0, self.trials - self.rewards)


def shares(arms: Sequence[Arm], floor: float) -> tuple[float, ...]:
    """Each variant's share of the traffic: the probability that it is the best one, and `floor` at least.

    Thompson sampling (W. Thompson, "On the likelihood that one unknown probability exceeds another in view of the
    evidence of two samples", Biometrika 25, 1933) draws each call's variant with the probability that it is the best.
    Given as shares, calls stick to their keys as under fixed weights, and each knows the probability of its variant.

    Raises `ValueError` for a floor that leaves nothing to share.
    """
    if not 0 <= floor * len(arms) < 1:
        raise ValueError(f"a floor of {floor:g} for each of {len(arms)} variants leaves nothing to learn with")
    rest = 1 - floor * len(arms)
    return tuple(floor + rest * each for each in best(arms))


def best(arms: Sequence[Arm]) -> tuple[float, ...]:
    """The probability of each variant that its mean is the largest: its density times the others' distributions."""
    if len(arms) == 1:
        return (1.0,)
    points = _points(arms)
    masses = [_masses(arm, points) for arm in arms]
    below = [_below(mass) for mass in masses]
    wins = [
        math.fsum(mass[i] * math.prod(other[i] for k, other in enumerate(below) if k != j) for i in range(len(points)))
        for j, mass in enumerate(masses)
    ]
    total = math.fsum(wins)
    return tuple(each / total for each in wins)


def _points(arms: Sequence[Arm]) -> list[float]:
    """Evenly spaced, where any of the beliefs has something; the narrowest has at least a few points."""
    ends = []
    for arm in arms:
        size = arm.alpha + arm.beta
        mean, deviation = arm.alpha / size, math.sqrt(arm.alpha * arm.beta / (size * size * (size + 1)))
        ends.append((mean - _DEVIATIONS * deviation, mean + _DEVIATIONS * deviation, deviation))
    low, high = max(0.0, min(end[0] for end in ends)), min(1.0, max(end[1] for end in ends))
    narrowest = min(end[2] for end in ends)
    count = min(max(_POINTS, math.ceil(4 * (high - low) / narrowest)), 20 * _POINTS)
    return [low + (high - low) * (i + 0.5) / count for i in range(count)]


def _masses(arm: Arm, points: Sequence[float]) -> list[float]:
    """What is believed at each point; adds up to 1."""
    logs = [(arm.alpha - 1) * math.log(x) + (arm.beta - 1) * math.log1p(-x) for x in points]
    most = max(logs)
    masses = [math.exp(log - most) for log in logs]
    total = math.fsum(masses)
    return [mass / total for mass in masses]


def _below(masses: Sequence[float]) -> list[float]:
    """The belief that the mean lies below each point; half of the point's own counts."""
    return [total - mass / 2 for total, mass in zip(accumulate(masses), masses, strict=True)]
