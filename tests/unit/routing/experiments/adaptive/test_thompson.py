"""Shares follow the probability of being best, and never fall below the floor."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.routing.experiments.adaptive.thompson import Arm, best, shares

arms = st.lists(
    st.integers(0, 3_000).flatmap(lambda n: st.builds(Arm, st.floats(0, n), st.just(float(n)))), min_size=1, max_size=4
)


def test_nothing_known_is_shared_evenly() -> None:
    assert best([Arm(), Arm()]) == pytest.approx([0.5, 0.5])
    assert best([Arm()] * 3) == pytest.approx([1 / 3] * 3)


def test_the_probability_of_being_best_is_that_of_beta_distributions() -> None:
    """Against draws, and for uniform beliefs beside Beta(2, 1) against what it is on paper: 2/3."""
    assert best([Arm(1, 1), Arm()])[0] == pytest.approx(2 / 3, abs=1e-4)
    rng, known = random.Random(1), [Arm(18, 40), Arm(30, 50), Arm(5, 9)]
    drawn = [[rng.betavariate(arm.alpha, arm.beta) for arm in known] for _ in range(40_000)]
    wins = [sum(max(range(3), key=each.__getitem__) == j for each in drawn) / len(drawn) for j in range(3)]
    assert best(known) == pytest.approx(wins, abs=0.01)


def test_a_million_calls_decide_small_differences() -> None:
    assert best([Arm(951_000, 1e6), Arm(950_000, 1e6)])[0] > 0.99
    assert best([Arm(9, 10), Arm(500_000, 1e6)])[0] > 0.9


@given(arms, st.floats(0, 0.2))
def test_shares_add_up_and_keep_the_floor(known: list[Arm], floor: float) -> None:
    found = shares(known, floor)
    assert math.fsum(found) == pytest.approx(1)
    assert min(found) >= floor


@pytest.mark.parametrize("floor", [0.5, -0.1])
def test_a_floor_that_leaves_nothing_is_refused(floor: float) -> None:
    with pytest.raises(ValueError, match="leaves nothing"):
        shares([Arm(), Arm()], floor)


def test_the_better_variant_gets_most_of_the_traffic_in_time() -> None:
    rng, rates, seen = random.Random(3), (0.9, 0.8), [[0.0, 0.0], [0.0, 0.0]]
    given_to_better = 0.0
    for _ in range(60):
        split = shares([Arm(*each) for each in seen], 0.05)
        given_to_better += split[0]
        for _ in range(50):
            j = 0 if rng.random() < split[0] else 1
            seen[j][0] += rng.random() < rates[j]
            seen[j][1] += 1
    assert given_to_better / 60 > 0.75
