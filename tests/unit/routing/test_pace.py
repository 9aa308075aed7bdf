"""How fast permits come back: estimates for those who wait, and bounds for those who cannot."""

from __future__ import annotations

import random

import pytest

from polyroute.routing.pace import Pace


def paced(*intervals_s: float, in_use: int = 4) -> Pace:
    pace = Pace()
    for interval_s in intervals_s:
        pace.returned(interval_s, in_use)
    return pace


def test_nothing_is_known_at_first() -> None:
    assert Pace().wait_s(1, 4) is None
    assert Pace().least_wait_s(1000, 4) == 0


def test_a_wait_is_as_many_intervals_as_there_are_calls_before() -> None:
    pace = paced(*[0.5] * 32)
    assert pace.wait_s(1, 4) == pytest.approx(0.5)
    assert pace.wait_s(10, 4) == pytest.approx(5.0)


def test_twice_the_permits_halve_the_wait() -> None:
    pace = paced(*[0.5] * 32)
    assert pace.wait_s(10, 8) == pytest.approx(2.5)
    assert pace.least_wait_s(100, 8) == pytest.approx(pace.least_wait_s(100, 4) / 2)


def test_only_the_last_intervals_count() -> None:
    assert paced(*[9.0] * 100, *[0.5] * 32).wait_s(1, 4) == pytest.approx(0.5)


def test_a_bound_needs_a_place_far_back_and_enough_to_go_by() -> None:
    pace = paced(*[0.5] * 20)
    assert pace.least_wait_s(15, 4) == 0
    assert pace.least_wait_s(16, 4) == pytest.approx(4.0)
    assert paced(*[0.5] * 19).least_wait_s(16, 4) == 0


def test_one_stall_does_not_move_the_bound_and_batches_make_it_nothing() -> None:
    assert paced(*[0.5] * 31, 600.0).least_wait_s(100, 4) == pytest.approx(25.0)
    assert paced(*[0.0, 0.0, 0.0, 8.0] * 8).least_wait_s(100, 4) == 0


@pytest.mark.parametrize("place", [16, 64, 1000])
def test_hardly_anybody_gets_there_sooner_than_the_bound(place: int) -> None:
    """Permits that come back at random, one a second."""
    chance = random.Random(5)
    sooner = 0
    for _ in range(300):
        pace = paced(*(chance.expovariate(1.0) for _ in range(32)))
        wait_s = sum(chance.expovariate(1.0) for _ in range(place))
        sooner += wait_s < pace.least_wait_s(place, 4)
    assert sooner <= 3
