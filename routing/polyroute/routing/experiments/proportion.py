"""Always-valid intervals around a proportion, such as a share of calls that failed."""

from __future__ import annotations

import math
from typing import Final

from polyroute.routing.experiments.interval import Interval, check_alpha, first_where

_PRIOR: Final = 0.5
"""Both parameters of the mixing Beta distribution (Jeffreys): good at every proportion, small ones too."""


def interval(successes: int, trials: int, alpha: float) -> Interval:
    """The look at a confidence sequence for a proportion after `trials`; [0, 1] before the first.

    The bets of all gamblers who believe in some proportion, mixed by a Beta distribution, make a wealth that is a
    non-negative martingale under the true proportion, so it exceeds 1 / alpha with probability alpha at most at any
    time ever (Ville). The interval holds the proportions under which it has not. For binary outcomes these are the
    betting intervals of I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", JRSS
    B 86 (2024), with the mixture of H. Robbins, "Statistical methods related to the law of the iterated logarithm",
    1970. Exact at every sample size; the order of outcomes says nothing.

    Raises `ValueError` for counts that cannot be.
    """
    check_alpha(alpha)
    _check(successes, trials)
    if trials == 0:
        return Interval(0.5, 0.0, 1.0)
    limit = -math.log(alpha)
    estimate = successes / trials
    lower = first_where(lambda p: log_wealth(successes, trials, p) < limit, 0.0, estimate)
    upper = 1.0 - first_where(lambda q: log_wealth(successes, trials, 1.0 - q) < limit, 0.0, 1.0 - estimate)
    return Interval(estimate, lower, upper)


def log_wealth(successes: int, trials: int, proportion: float) -> float:
    """The logarithm of the wealth made by betting against `proportion`: an e-value against it."""
    failures = trials - successes
    if (successes and proportion <= 0) or (failures and proportion >= 1):
        return math.inf
    believed = successes * math.log(proportion) if successes else 0.0
    believed += failures * math.log1p(-proportion) if failures else 0.0
    return _log_beta(successes + _PRIOR, failures + _PRIOR) - _log_beta(_PRIOR, _PRIOR) - believed


def _check(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials; there are 0 to as many as trials")


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
