"""Two versions compared pair by pair: bets on which of two calls made at about the same time fares worse."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from polyroute.routing.experiments.interval import Interval, check_alpha, first_where, log_mean_exp

_STAKES: Final = tuple(0.02 * (0.98 / 0.02) ** (i / 11) for i in range(12))
"""Parts of the largest stake that the gamblers bet who are mixed: from small differences to glaring ones."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of one answer of the new version and one of the old: in `worse` the new one alone was bad, in `better` the
    old one alone, in `even` both or neither.

    Three counts are all the state: the order of pairs says nothing, and the pairs of several routers add up.
    """

    worse: int = 0
    even: int = 0
    better: int = 0

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Pairs:
        """Of how bad each answer was, the new version's first: 1 and 0, or by any other scale."""
        seen = list(pairs)
        worse, better = sum(new > old for new, old in seen), sum(new < old for new, old in seen)
        return cls(worse, len(seen) - worse - better, better)

    @property
    def count(self) -> int:
        """Pairs seen."""
        return self.worse + self.even + self.better

    @property
    def difference(self) -> float:
        """How much more often the new version is bad, -1 to 1; 0 before the first pair."""
        return (self.worse - self.better) / self.count if self.count else 0.0

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(self.worse + other.worse, self.even + other.even, self.better + other.better)

    def with_pair(self, new_bad: bool, old_bad: bool) -> Pairs:
        """These and one more."""
        return self + Pairs(int(new_bad and not old_bad), int(new_bad == old_bad), int(old_bad and not new_bad))

    @property
    def swapped(self) -> Pairs:
        """The same with the old version in the new one's place."""
        return Pairs(self.better, self.even, self.worse)


def log_e_worse(pairs: Pairs, margin: float = 0.0) -> float:
    """The logarithm of the e-value against "the new version is bad at most `margin` more often than the old".

    A pair is worth D = 1, 0 or -1. Whoever stakes a part c of the largest safe stake multiplies the wealth by
    1 + c (D - margin) / (1 + margin) with each pair, which is 1 at most on average while the mean of D is no larger
    than `margin`. The mean over several c is an e-process: it exceeds 1 / alpha with probability alpha at most, at any
    time ever (I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86,
    2024, sections 3 and 4; for two groups also R. Turner, A. Ly and P. Grünwald, "Generic E-variables for exact
    sequential k-sample tests that allow for optional stopping", JSPI 230, 2024, with blocks of one and one). Nothing is
    assumed of how often either version is bad, nor that this stays the same while both change alike.

    `margin` lies in (-1, 1).
    """
    reach = 1 + margin
    steps = [(n, (d - margin) / reach) for n, d in ((pairs.worse, 1), (pairs.even, 0), (pairs.better, -1)) if n]
    return log_mean_exp([math.fsum(n * math.log1p(c * x) for n, x in steps) for c in _STAKES])


def log_e_not_worse(pairs: Pairs, margin: float) -> float:
    """The logarithm of the e-value against "the new version is bad at least `margin` more often than the old"."""
    return log_e_worse(pairs.swapped, -margin)


def interval(pairs: Pairs, alpha: float) -> Interval:
    """The look at a confidence sequence for how much more often the new version is bad, -1 to 1.

    Each end has half of `alpha`; both come from the bets of `log_e_worse` against every difference at once.
    """
    check_alpha(alpha)
    limit = math.log(2 / alpha)
    return Interval(pairs.difference, _lower(pairs, limit), -_lower(pairs.swapped, limit))


def _lower(pairs: Pairs, limit: float) -> float:
    """The smallest difference that the bets have not ruled out: they win less against larger ones."""
    least = -1 + 1e-9
    found = first_where(lambda margin: log_e_worse(pairs, margin) < limit, least, max(pairs.difference, least))
    return found if found > least else -1.0
