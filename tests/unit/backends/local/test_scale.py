"""How many replicas there should be: within bounds, more under pressure, fewer when idle, and never to and fro."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.backends.local.scale import PRESSED_S, Bounds, Trend, Work, follow, pressed, spare, wanted
from polyroute.core.config import LocalConfig

BOUNDS = Bounds(min=1, max=3, idle_unload_s=60)
FULL = Work(in_flight=8, queued=5, seats=8, used_at=0)
IDLE = Work(in_flight=0, queued=0, seats=8, used_at=0)


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ({}, 0, 1),
        ({"warm": {"min": 1}}, 1, 1),
        ({"warm": {"min": 0, "max": 4}}, 0, 4),
        ({"warm": {"min": 2}}, 2, 2),
        ({"warm": {"max": 4}, "max_concurrency": 3}, 0, 3),
        ({"warm": {"min": 2, "max": 4}, "max_concurrency": 1}, 2, 2),
    ],
)
def test_the_bounds_of_a_model(options: dict[str, object], least: int, most: int) -> None:
    config = LocalConfig.model_validate({"id": "m", "type": "local", **options})
    assert Bounds.of(config) == Bounds(least, most, 900.0)


works = st.builds(
    Work,
    in_flight=st.integers(0, 100),
    queued=st.integers(0, 100),
    seats=st.integers(1, 32),
    used_at=st.floats(0, 100),
)
bounds = st.integers(0, 4).flatmap(
    lambda least: st.builds(
        Bounds, min=st.just(least), max=st.integers(max(1, least), 8), idle_unload_s=st.floats(1, 1000)
    )
)


def seen(work: Work, replicas: int, *times: float) -> Trend:
    trend = Trend()
    for now in times:
        trend = follow(trend, replicas, work, now)
    return trend


def test_a_queue_that_persists_asks_for_one_more() -> None:
    assert wanted(seen(FULL, 1, 0), BOUNDS, 0) == 1
    assert wanted(seen(FULL, 1, 0, PRESSED_S - 0.1), BOUNDS, PRESSED_S - 0.1) == 1
    assert wanted(seen(FULL, 1, 0, PRESSED_S), BOUNDS, PRESSED_S) == 2


def test_calls_beyond_the_seats_ask_for_one_more_as_a_queue_does() -> None:
    """With more permits than seats nothing queues for a permit."""
    more = Work(in_flight=9, queued=0, seats=8, used_at=0)
    assert wanted(seen(more, 1, 0, PRESSED_S), BOUNDS, PRESSED_S) == 2
    assert wanted(seen(more, 2, 0, PRESSED_S), BOUNDS, PRESSED_S) == 2
    exactly = Work(in_flight=8, queued=0, seats=8, used_at=0)
    assert wanted(seen(exactly, 1, 0, PRESSED_S), BOUNDS, PRESSED_S) == 1


def test_a_queue_that_was_empty_in_between_does_not_persist() -> None:
    trend = seen(FULL, 1, 0, 4)
    trend = follow(trend, 1, Work(8, 0, 8, 0), 5)
    assert wanted(follow(trend, 1, FULL, 6), BOUNDS, 6) == 1


def test_the_wait_begins_anew_with_each_replica() -> None:
    trend = follow(seen(FULL, 1, 0, PRESSED_S), 2, FULL, PRESSED_S + 1)
    assert wanted(trend, BOUNDS, PRESSED_S + 1) == 2
    later = 2 * PRESSED_S + 1
    assert wanted(follow(trend, 2, FULL, later), BOUNDS, later) == 3


def test_an_idle_replica_leaves_after_its_time_and_not_below_the_least() -> None:
    assert wanted(seen(IDLE, 2, 0, 59), BOUNDS, 59) == 2
    assert wanted(seen(IDLE, 2, 0, 60), BOUNDS, 60) == 1
    assert wanted(seen(IDLE, 1, 0, 1000), BOUNDS, 1000) == 1


def test_the_last_one_counts_from_its_last_call_even_if_nobody_looked_while_it_ran() -> None:
    cold = Bounds(min=0, max=1, idle_unload_s=60)
    trend = seen(IDLE, 1, 0, 50)
    trend = follow(trend, 1, Work(0, 0, 8, used_at=55), 60)
    assert wanted(trend, cold, 60) == 1
    assert wanted(follow(trend, 1, Work(0, 0, 8, used_at=55), 115), cold, 115) == 0


@given(works, st.integers(0, 8), bounds, st.lists(st.floats(0, 50), max_size=6))
def test_the_bounds_hold_and_steps_are_single(work: Work, replicas: int, given_: Bounds, waits: list[float]) -> None:
    now, trend = 100.0, Trend()
    for wait in [0.0, *waits]:
        now += wait
        trend = follow(trend, replicas, work, now)
    target = wanted(trend, given_, now)
    if given_.min <= replicas <= given_.max:
        assert given_.min <= target <= given_.max
        assert abs(target - replicas) <= 1
    elif replicas < given_.min:
        assert target == given_.min
    else:
        assert target == replicas - 1


@given(st.integers(0, 100), st.integers(1, 16), st.none() | st.integers(1, 200), bounds)
def test_work_that_stays_as_it_is_never_makes_replicas_come_and_go(
    calls: int, seats: int, permits: int | None, given_: Bounds
) -> None:
    """Calls take the permits, by default as many as seats, and queue for the rest; the number of replicas settles."""
    now, replicas, trend, history = 0.0, given_.min, Trend(), []
    step = min(PRESSED_S, given_.idle_unload_s)
    for _ in range(60):
        now += step
        in_flight = min(calls, replicas * seats if permits is None or not replicas else permits)
        work = Work(in_flight, calls - in_flight if replicas else 0, seats, used_at=now if calls else 0.0)
        trend = follow(trend, replicas, work, now)
        target = wanted(trend, given_, now)
        history.append(target - replicas)
        replicas = target
    moves = [move for move in history if move]
    assert moves == sorted(moves, reverse=True) or moves == sorted(moves)
    assert len(set(moves)) <= 1


@given(st.integers(0, 10), works)
def test_whoever_is_spared_leaves_the_others_half_empty(replicas: int, work: Work) -> None:
    if spare(replicas, work):
        assert not pressed(replicas, work)
        assert 2 * work.in_flight <= (replicas - 1) * work.seats
