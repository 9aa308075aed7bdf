"""Intervals around a proportion that hold at every look."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.routing.experiments.proportion import interval, log_wealth


@pytest.mark.parametrize("proportion", [0.01, 0.3, 0.5, 0.97])
def test_wealth_is_one_on_average_under_the_true_proportion(proportion: float) -> None:
    trials = 30
    average = sum(
        math.comb(trials, s)
        * proportion**s
        * (1 - proportion) ** (trials - s)
        * math.exp(log_wealth(s, trials, proportion))
        for s in range(trials + 1)
    )
    assert average == pytest.approx(1)


def test_what_cannot_be_is_infinitely_surprising() -> None:
    assert log_wealth(1, 2, 0.0) == log_wealth(1, 2, 1.0) == math.inf
    assert log_wealth(0, 2, 0.0) < 0


def test_nothing_is_known_before_the_first_trial() -> None:
    found = interval(0, 0, 0.05)
    assert (found.lower, found.upper) == (0, 1)


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.001, 0.5))
def test_an_interval_holds_the_estimate_within_0_and_1(successes: int, failures: int, alpha: float) -> None:
    if successes + failures:
        found = interval(successes, successes + failures, alpha)
        assert 0 <= found.lower <= found.estimate <= found.upper <= 1
        assert (found.lower == 0) == (successes == 0) or found.lower < 1e-9


def test_intervals_hold_the_truth_at_every_look() -> None:
    rng, missed = random.Random(3), 0
    for _ in range(100):
        successes, held = 0, True
        for trials in range(1, 301):
            successes += rng.random() < 0.1
            held = held and log_wealth(successes, trials, 0.1) < math.log(1 / 0.2)
        missed += not held
    assert missed <= 20


@pytest.mark.parametrize(("successes", "trials"), [(-1, 2), (3, 2)])
def test_counts_that_cannot_be_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="successes in"):
        interval(successes, trials, 0.05)
