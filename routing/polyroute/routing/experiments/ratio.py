"""How much slower one version is than another: always-valid intervals around the median ratio of paired times."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from polyroute.routing.experiments.interval import Interval, check_alpha
from polyroute.routing.experiments.pairs import Pairs, log_e_worse

_PER_DOUBLING: Final = 16
"""Buckets of ratios between 1 and 2: each is 4.4% wide."""

_MOST: Final = 8 * _PER_DOUBLING
"""Ratios beyond 256 or below 1/256 count as these."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """Ratios of paired times, the new version's over the old one's, counted in at most 257 buckets.

    Bucket b holds ratios above 2 ** ((b - 1) / 16) and up to 2 ** (b / 16). Those of several routers add up.
    """

    buckets: Mapping[int, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Pairs seen."""
        return sum(self.buckets.values())

    @property
    def median(self) -> float:
        """The median ratio, to the width of a bucket; 1 before the first pair."""
        half, seen = self.count / 2, 0
        for bucket, count in sorted(self.buckets.items()):
            seen += count
            if seen >= half:
                return _edge(bucket - 0.5)
        return 1.0

    def __add__(self, other: Ratios) -> Ratios:
        return Ratios(Counter(self.buckets) + Counter(other.buckets))

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Ratios:
        """Of pairs of times, the new version's first, in seconds; those below a microsecond count as one."""
        return cls(Counter(_bucket(max(new_s, 1e-6) / max(old_s, 1e-6)) for new_s, old_s in pairs))

    def above(self, bucket: int) -> Pairs:
        """Pairs whose ratio lies above the upper edge of that bucket as `worse`, the others as `better`."""
        above = sum(count for each, count in self.buckets.items() if each > bucket)
        return Pairs(worse=above, better=self.count - above)


def log_e_slower(ratios: Ratios, limit: float) -> float:
    """The logarithm of the e-value against "the median ratio is at most `limit`".

    A sign test by betting: of pairs from such versions at most half lie above the limit, whatever the distributions of
    their times, heavy tails included (S. Howard and A. Ramdas, "Sequential estimation of quantiles with applications to
    A/B testing and best-arm identification", Bernoulli 28, 2022, for one quantile, with the bets of
    `polyroute.routing.experiments.pairs`). The limit is rounded up to the edge of a bucket.
    """
    return log_e_worse(ratios.above(math.ceil(_PER_DOUBLING * math.log2(limit) - 1e-9)))


def log_e_not_slower(ratios: Ratios, limit: float) -> float:
    """The logarithm of the e-value against "the median ratio is at least `limit`", which is rounded down."""
    return log_e_worse(ratios.above(math.floor(_PER_DOUBLING * math.log2(limit) + 1e-9)).swapped)


def interval(ratios: Ratios, alpha: float) -> Interval:
    """The look at a confidence sequence for the median ratio, each end with half of `alpha`; (0, inf) at first."""
    check_alpha(alpha)
    needed = math.log(2 / alpha)
    lower, upper = 0.0, math.inf
    for bucket in sorted(ratios.buckets):
        if log_e_worse(ratios.above(bucket - 1)) < needed:
            break
        lower = _edge(bucket - 1)
    for bucket in sorted(ratios.buckets, reverse=True):
        if log_e_worse(ratios.above(bucket).swapped) < needed:
            break
        upper = _edge(bucket)
    return Interval(ratios.median, lower, upper)


def _bucket(ratio: float) -> int:
    return min(max(math.ceil(_PER_DOUBLING * math.log2(ratio)), -_MOST), _MOST)


def _edge(bucket: float) -> float:
    return float(2 ** (bucket / _PER_DOUBLING))
