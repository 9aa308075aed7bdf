"""Asymptotic confidence sequences around means and their difference."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.routing.experiments.mean import Sample, difference, interval, log_e_positive, needed


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=50))
def test_a_sample_is_the_same_one_by_one_and_from_sums(values: list[float]) -> None:
    sample = Sample()
    for value in values:
        sample = sample.with_value(value)
    sums = Sample.of_sums(len(values), math.fsum(values), math.fsum(v * v for v in values))
    assert sample.count == sums.count == len(values)
    assert sample.mean == pytest.approx(sums.mean, abs=1e-6)
    assert sample.variance == pytest.approx(statistics.pvariance(values), abs=1e-3)
    assert sums.variance == pytest.approx(sample.variance, abs=1e-3)


def test_intervals_hold_the_truth_at_every_look() -> None:
    rng, missed = random.Random(5), 0
    for _ in range(100):
        sample, held = Sample(), True
        for _ in range(500):
            sample = sample.with_value(rng.expovariate(1.0))
            held = held and 1.0 in interval(sample, 0.1)
        missed += not held
    assert missed <= 10


def test_two_equal_variants_seldom_differ_and_worse_ones_do() -> None:
    rng, wrong, found = random.Random(11), 0, 0
    for _ in range(50):
        bad = [0, 0, 0]
        alarms = [False, False]
        for n in range(1, 3_001):
            for i, rate in enumerate((0.05, 0.05, 0.10)):
                bad[i] += rng.random() < rate
            if n % 20 == 0:
                control, same, worse = (Sample.of_successes(count, n) for count in bad)
                alarms[0] = alarms[0] or 0 not in difference(same, control, 0.05)
                alarms[1] = alarms[1] or difference(worse, control, 0.05).lower > 0
        wrong += alarms[0]
        found += alarms[1]
    assert wrong <= 3
    assert found == 50


def test_too_few_observations_say_nothing() -> None:
    few, many = Sample.of_successes(0, 9), Sample.of_successes(50, 1_000)
    assert interval(few, 0.05).upper == math.inf
    assert difference(many, few, 0.05).lower == -math.inf
    assert log_e_positive(many, few) == 0


def test_successes_alone_leave_a_variance() -> None:
    assert Sample.of_successes(20, 20).variance > 0
    assert Sample.of_successes(0, 0) == Sample()


def test_the_e_value_and_the_interval_agree() -> None:
    control = Sample.of_successes(100, 2_000)
    worse, better = Sample.of_successes(220, 2_000), Sample.of_successes(60, 2_000)
    assert log_e_positive(worse, control) > math.log(20)
    assert difference(worse, control, 0.05).lower > 0
    assert log_e_positive(better, control) < 0
    assert log_e_positive(worse, control, beyond=0.06) < 0


def test_what_a_decision_needs_falls_as_evidence_comes() -> None:
    early = (Sample.of_successes(8, 100), Sample.of_successes(5, 100))
    later = (Sample.of_successes(80, 1_000), Sample.of_successes(50, 1_000))
    assert needed(*early, 0.05) > needed(*later, 0.05) > 0
    assert needed(Sample.of_successes(200, 1_000), later[1], 0.05) == 0
    assert needed(later[0], later[0], 0.05) == 1_000_000_000
    assert 0 < needed(later[1], later[1], 0.05, margin=0.01) < needed(later[1], later[1], 0.05, margin=0.005)


def test_what_a_decision_needs_is_about_right() -> None:
    treatment, control = Sample.of_successes(80, 1_000), Sample.of_successes(50, 1_000)
    more = needed(treatment, control, 0.05)
    grown = 1 + more / 2_000
    after = [Sample(round(s.count * grown), s.mean, s.variance) for s in (treatment, control)]
    assert difference(*after, 0.05).lower == pytest.approx(0, abs=1e-4)


def test_rounding_is_no_difference() -> None:
    """Every answer has 5 tokens, and weighted sums of them differ in the last digit."""
    one, other = Sample(60, 5.000000000000001, 0.0), Sample(40, 5.0, 0.0)
    assert one.mean != other.mean
    assert 0.0 in difference(one, other, 0.05)
    assert log_e_positive(one, other) < 1.0
    assert needed(one, other, 0.05) > 0
    assert 0.0 not in difference(Sample(60, 5.001, 0.0), other, 0.05)
