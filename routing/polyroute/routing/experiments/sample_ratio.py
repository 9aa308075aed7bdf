"""Whether traffic was split as it should have been, before anything else is believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_CONCENTRATION: Final = 1_000.0
"""How near the alternatives lie to the shares that should be: mismatches are small where there are any."""

LIMIT: Final = math.log(1_000)
"""Logarithm of the e-value from which on the split is wrong: one in a thousand right ones comes to it, ever."""


def log_e_mismatch(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The logarithm of the e-value against "each observation fell to a variant with the probability in `shares`".

    M. Lindon and A. Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022: the shares mixed by a
    Dirichlet distribution around those that should be, over these. Count what was drawn independently: keys rather
    than calls where variants stick to keys. Where shares change, add the logarithms of each period.

    Raises `ValueError` for shares that do not sum to 1; an observation of a variant without a share is infinitely
    surprising.
    """
    if len(counts) != len(shares) or any(share < 0 for share in shares) or abs(math.fsum(shares) - 1) > 1e-6:
        raise ValueError(f"{len(counts)} counts and shares that sum to {math.fsum(shares):g}; they must sum to 1")
    if any(count and not share for count, share in zip(counts, shares, strict=True)):
        return math.inf
    total = sum(counts)
    log = math.lgamma(_CONCENTRATION) - math.lgamma(_CONCENTRATION + total)
    for count, share in zip(counts, shares, strict=True):
        if share:
            believed = _CONCENTRATION * share
            log += math.lgamma(believed + count) - math.lgamma(believed) - count * math.log(share)
    return log


def matches(counts: Sequence[int], shares: Sequence[float]) -> bool:
    """Whether the counts speak for the shares, or at least not against them."""
    return log_e_mismatch(counts, shares) < LIMIT
