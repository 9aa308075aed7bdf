"""What fails is left alone for growing times, and one at a time finds out whether it works again."""

from __future__ import annotations

from itertools import pairwise

from polyroute.routing.cache.guard import Guard
from tests.clock import Clock


def test_a_few_failures_are_borne_and_a_success_wipes_them_out() -> None:
    guard = Guard(Clock())
    for _ in range(10):
        for _ in range(2):
            assert guard.admits()
            guard.failed()
        guard.worked()
    assert guard.open


def test_after_three_in_a_row_one_at_a_time_tries() -> None:
    clock = Clock()
    guard = Guard(clock)
    for _ in range(200):  # as many as were on their way when it went down
        assert guard.admits() or not guard.open
        guard.failed()
    assert not any(guard.admits() for _ in range(10))
    clock.now = 0.5
    assert [guard.admits() for _ in range(3)] == [True, False, False]
    guard.worked()
    assert all(guard.admits() for _ in range(10))


def test_the_pauses_grow_up_to_a_bound() -> None:
    clock = Clock()
    guard = Guard(clock)
    for _ in range(3):
        guard.failed()
    tried = []
    for tenth in range(2000):
        clock.now = tenth / 10
        if guard.admits():
            tried.append(clock.now)
            guard.failed()
    assert tried[:6] == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert {round(b - a, 3) for a, b in pairwise(tried[5:])} == {30.0}
