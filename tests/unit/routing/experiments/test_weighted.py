"""Means by inverse propensities."""

import random

import pytest

from polyroute.routing.experiments.mean import Sample, interval
from polyroute.routing.experiments.weighted import Weighted


def test_with_equal_probabilities_it_is_the_plain_mean_and_variance() -> None:
    values = [1.0, 2.0, 6.0]
    sample = sum((Weighted.of(value, 0.25) for value in values), Weighted()).sample
    assert (sample.count, sample.mean) == (3, pytest.approx(3.0))
    assert sample.variance == pytest.approx(14 / 3)


def test_a_share_that_changed_with_the_traffic_does_not_mislead() -> None:
    """Mornings are bad for everybody, and a variant that had most of its traffic then is not worse for that."""
    rng, sums, plain = random.Random(4), Weighted(), []
    for call in range(20_000):
        morning = call < 10_000
        probability = 0.9 if morning else 0.1
        if rng.random() < probability:
            bad = float(rng.random() < (0.4 if morning else 0.1))
            sums += Weighted.of(bad, probability)
            plain.append(bad)
    assert 0.25 in interval(sums.sample, 0.05)
    assert sum(plain) / len(plain) > 0.35


def test_successes_alone_leave_room_for_a_failure() -> None:
    always = sum((Weighted.of(1.0, probability) for probability in (0.5, 0.1)), Weighted())
    assert always.sample.variance == pytest.approx(0.0)
    assert always.sample_of_successes.mean == pytest.approx(1.0)
    assert always.sample_of_successes.variance > 0.1


def test_with_equal_probabilities_successes_are_smoothed_as_without_weights() -> None:
    found = sum((Weighted.of(value, 0.25) for value in (1.0, 1.0, 0.0)), Weighted()).sample_of_successes
    expected = Sample.of_successes(2, 3)
    assert (found.count, found.mean) == (3, pytest.approx(expected.mean))
    assert found.variance == pytest.approx(expected.variance)


def test_nothing_observed_is_an_empty_sample() -> None:
    assert Weighted().sample.count == 0


@pytest.mark.parametrize("probability", [0.0, -0.5, 1.01])
def test_a_probability_that_is_none_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match=r"lies in \(0, 1\]"):
        Weighted.of(1.0, probability)
