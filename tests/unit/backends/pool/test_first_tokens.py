"""Times to the first token: the newest count, and few say little."""

from __future__ import annotations

from polyroute.backends.pool.first_tokens import ENOUGH, KEPT, FirstTokens


def test_few_times_give_a_median_but_no_percentile() -> None:
    times = FirstTokens()
    assert (times.typical_s, times.percentile_s(95)) == (0.0, None)
    for seconds in (3.0, 1.0, 2.0):
        times.add(seconds)
    assert (times.typical_s, times.percentile_s(95)) == (2.0, None)


def test_percentiles_are_those_of_the_newest() -> None:
    times = FirstTokens()
    for seconds in range(1, 101):
        times.add(float(seconds))
    assert [times.percentile_s(p) for p in (1, 50, 95, 99)] == [1, 50, 95, 99]
    for _ in range(KEPT):
        times.add(7.0)
    assert (times.percentile_s(1), times.percentile_s(99), times.typical_s) == (7, 7, 7)
    assert ENOUGH < KEPT
