"""How much slower a version is: bets on the sign of each pair's ratio beyond a limit."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.routing.experiments.ratio import Ratios, interval, log_e_not_slower, log_e_slower

times = st.floats(1e-4, 1e4)


def drawn(seed: int, slower: float, count: int) -> Ratios:
    rng = random.Random(seed)
    return Ratios.of((slower * rng.lognormvariate(0, 0.7), rng.lognormvariate(0, 0.7)) for _ in range(count))


def test_a_version_twice_as_slow_is_found_out() -> None:
    slow = drawn(1, 2.0, 200)
    assert log_e_slower(slow, 1.25) > math.log(100)
    assert log_e_not_slower(slow, 1.25) < 0
    found = interval(slow, 0.05)
    assert 1.25 < found.lower < 2 < found.upper < 3
    assert found.estimate == pytest.approx(2, rel=0.25)


def test_a_version_as_fast_as_the_old_one_is_found_not_to_be_twice_as_slow() -> None:
    same = drawn(2, 1.0, 200)
    assert log_e_not_slower(same, 2.0) > math.log(100)
    assert log_e_slower(same, 1.25) < 0
    assert 1 in interval(same, 0.05)


def test_times_with_tails_as_heavy_as_can_be_turn_no_healthy_version_back() -> None:
    wrong = 0
    for seed in range(100):
        rng = random.Random(seed)
        pairs = [(1 / (1 - rng.random()) ** 3, 1 / (1 - rng.random()) ** 3) for _ in range(200)]
        wrong += any(log_e_slower(Ratios.of(pairs[:n]), 1.0) > math.log(10) for n in range(10, 201, 10))
    assert wrong <= 10


@given(st.lists(st.tuples(times, times), min_size=1, max_size=60))
def test_ratios_of_several_routers_add_up_and_the_interval_holds_the_median(pairs: list[tuple[float, float]]) -> None:
    half = len(pairs) // 2
    assert Ratios.of(pairs[:half]) + Ratios.of(pairs[half:]) == Ratios.of(pairs)
    found = interval(Ratios.of(pairs), 0.05)
    assert found.lower <= found.estimate <= found.upper


def test_ratios_have_bounded_buckets() -> None:
    found = Ratios.of([(1e9, 1e-9), (0.0, 5.0), (1.0, 1.0)])
    assert found.count == 3
    assert dict(found.buckets) == {128: 1, -128: 1, 0: 1}


def test_a_limit_between_edges_is_rounded_to_the_careful_side() -> None:
    at = Ratios.of([(1.2501, 1.0)] * 30)
    assert log_e_slower(at, 1.25) < 0  # in the bucket of the limit itself: not shown to be above
    assert log_e_not_slower(at, 1.25) < 0


def test_nothing_is_known_before_the_first_pair() -> None:
    found = interval(Ratios(), 0.05)
    assert (found.estimate, found.lower, found.upper) == (1, 0, math.inf)
