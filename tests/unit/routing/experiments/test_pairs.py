"""Comparisons pair by pair: bets that cannot win on average while the new version is no worse."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.routing.experiments.pairs import Pairs, interval, log_e_not_worse, log_e_worse

counts = st.builds(Pairs, *[st.integers(0, 2_000)] * 3)


@pytest.mark.parametrize(
    ("new", "old", "margin"), [(0.1, 0.1, 0.0), (0.5, 0.5, 0.0), (0.3, 0.1, 0.2), (0.05, 0.1, 0.0)]
)
def test_wealth_is_one_at_most_on_average_while_the_new_version_is_no_worse(
    new: float, old: float, margin: float
) -> None:
    size = 20
    worse, better = new * (1 - old), old * (1 - new)
    average = 0.0
    for w, b in itertools.product(range(size + 1), repeat=2):
        if w + b <= size:
            even = size - w - b
            ways = math.comb(size, w) * math.comb(size - w, b)
            chance = ways * worse**w * better**b * (1 - worse - better) ** even
            average += chance * math.exp(log_e_worse(Pairs(w, even, b), margin))
    assert average <= 1 + 1e-9
    if new - old == pytest.approx(margin):
        assert average == pytest.approx(1)


def test_wealth_grows_when_the_new_version_is_worse_and_pairs_of_several_routers_add_up() -> None:
    one, other = Pairs(worse=20, even=70, better=5), Pairs(worse=15, even=80, better=4)
    assert log_e_worse(one + other) > log_e_worse(one) > math.log(20)
    assert one + other == Pairs(35, 150, 9)
    assert log_e_worse(one.swapped) < 0


def test_failures_on_both_sides_say_nothing() -> None:
    pairs = Pairs().with_pair(True, True).with_pair(False, False)
    assert pairs == Pairs(even=2)
    assert log_e_worse(pairs) == 0
    assert Pairs().with_pair(True, False).difference == 1
    assert Pairs().with_pair(False, True).difference == -1


def test_no_worse_than_a_margin_can_be_shown_by_answers_without_failures() -> None:
    assert log_e_not_worse(Pairs(even=50), 0.05) < math.log(20) < log_e_not_worse(Pairs(even=110), 0.05)


@given(counts, st.floats(-0.9, 0.9), st.floats(0, 0.09))
def test_bets_win_less_against_larger_margins(pairs: Pairs, margin: float, more: float) -> None:
    assert log_e_worse(pairs, margin + more) <= log_e_worse(pairs, margin) + 1e-9


@given(counts)
def test_an_interval_holds_the_estimate_and_is_wider_with_more_confidence(pairs: Pairs) -> None:
    narrow, wide = interval(pairs, 0.1), interval(pairs, 0.01)
    assert -1 <= wide.lower <= narrow.lower <= pairs.difference + 1e-9
    assert pairs.difference - 1e-9 <= narrow.upper <= wide.upper <= 1


def test_nothing_is_known_before_the_first_pair() -> None:
    found = interval(Pairs(), 0.05)
    assert (found.estimate, found.lower, found.upper) == (0, -1, 1)


def test_intervals_hold_the_truth_at_every_look() -> None:
    rng, missed = random.Random(7), 0
    for _ in range(60):
        pairs, held = Pairs(), True
        for look in range(1, 401):
            pairs = pairs.with_pair(rng.random() < 0.2, rng.random() < 0.1)
            if look % 10 == 0:
                held = held and 0.1 in interval(pairs, 0.2)
        missed += not held
    assert missed <= 12  # a fifth; far fewer in truth


@pytest.mark.parametrize("alpha", [0, 1, -0.1])
def test_an_alpha_that_is_no_probability_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval(Pairs(), alpha)
