"""Whether traffic was split as it should have been."""

import itertools
import math
import random

import pytest

from polyroute.routing.experiments.sample_ratio import log_e_mismatch, matches


def test_the_e_value_is_one_on_average_while_the_split_is_right() -> None:
    shares, size = (0.5, 0.3, 0.2), 12
    average = 0.0
    for a, b in itertools.product(range(size + 1), repeat=2):
        if a + b <= size:
            c = size - a - b
            ways = math.comb(size, a) * math.comb(size - a, b)
            chance = ways * shares[0] ** a * shares[1] ** b * shares[2] ** c
            average += chance * math.exp(log_e_mismatch((a, b, c), shares))
    assert average == pytest.approx(1)


def test_a_right_split_matches_at_every_look_and_a_wrong_one_does_not_for_long() -> None:
    rng = random.Random(2)
    first = 0
    for n in range(1, 20_001):
        first += rng.random() < 0.5
        if n % 100 == 0:
            assert matches((first, n - first), (0.5, 0.5))
    assert not matches((10_600, 9_400), (0.5, 0.5))
    assert matches((106, 94), (0.5, 0.5))


def test_a_variant_without_a_share_must_have_nothing() -> None:
    assert matches((10, 0), (1.0, 0.0))
    assert not matches((10, 1), (1.0, 0.0))


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.0,), (1.5, -0.5)])
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must sum to 1"):
        log_e_mismatch((1, 1), shares)
