"""Retries are a share of the calls, and never more."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from polyroute.backends.pool.budget import WINDOW_S, RetryBudget
from polyroute.backends.pool.window import SLOTS, Window
from polyroute.core.config import RetryBudgetConfig


def test_a_share_of_the_calls_and_a_floor() -> None:
    now = [0.0]
    budget = RetryBudget(RetryBudgetConfig(share=0.2, min_per_second=0.3), lambda: now[0])
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    for _ in range(10):
        budget.called()
    assert [budget.take() for _ in range(3)] == [True, True, False]
    now[0] += WINDOW_S
    assert [budget.take() for _ in range(4)] == [True, True, True, False]


def test_an_outage_is_amplified_by_the_share_at_most() -> None:
    budget = RetryBudget(RetryBudgetConfig(share=0.2, min_per_second=1), lambda: 0.0)
    taken = 0
    for _ in range(10_000):
        budget.called()
        taken += budget.take() + budget.take()
    assert taken == 2_000 + WINDOW_S


STEPS = st.lists(
    st.one_of(st.just("call"), st.just("take"), st.floats(0.01, 15, allow_nan=False)), min_size=1, max_size=200
)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.floats(0, 1), st.floats(0, 5))
def test_it_is_never_exceeded(steps: list[str | float], share: float, floor: float) -> None:
    """In the window that ends with each retry, counted anew."""
    now = 0.0
    budget = RetryBudget(RetryBudgetConfig(share=share, min_per_second=floor), lambda: now)
    calls: list[float] = []
    taken: list[float] = []

    def lately(times: list[float]) -> int:
        slot = WINDOW_S / SLOTS
        return sum(time // slot > now // slot - SLOTS for time in times)

    for step in steps:
        if isinstance(step, float):
            now += step
        elif step == "call":
            calls.append(now)
            budget.called()
        else:
            allowed = share * lately(calls) + floor * WINDOW_S
            assert budget.take() == (lately(taken) + 1 <= allowed)
            if lately(taken) + 1 <= allowed:
                taken.append(now)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 4), st.integers(0, 3), st.integers(0, 3)), max_size=60))
def test_a_window_counts_what_is_in_it(added: list[tuple[float, int, int]]) -> None:
    now = 5.0
    window = Window(10.0, lambda: now)
    all_of: list[tuple[int, int, int]] = []
    for wait, count, marked in added:
        now += wait
        window.add(count, marked)
        all_of.append((int(now // 1.0), count, marked))
        there = [(c, m) for slot, c, m in all_of if slot > int(now // 1.0) - SLOTS]
        assert (window.count, window.marked) == (sum(c for c, _ in there), sum(m for _, m in there))
    now += 100
    assert (window.count, window.marked) == (0, 0)
