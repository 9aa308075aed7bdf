"""How much of waiting prompts a step reads beside those who decode."""

from __future__ import annotations

import pytest

from polyroute.backends.local.worker.pace import Pace

MOST = 256


def learnt(decode_s: float, token_s: float) -> Pace:
    pace = Pace(MOST)
    for _ in range(50):
        pace.note(4, 0, decode_s)
        pace.note(4, 100, decode_s + 100 * token_s)
    return pace


def test_nobody_to_wait_means_the_whole_budget() -> None:
    assert Pace(MOST).tokens(0, 3) == MOST
    assert learnt(0.01, 0.001).tokens(0, 1) == MOST


def test_before_it_has_learnt_the_budget_counts() -> None:
    assert Pace(MOST).tokens(6, 1) == MOST - 6


def test_few_prompts_stretch_a_step_to_twice_what_decoding_takes() -> None:
    assert learnt(0.050, 0.001).tokens(4, 1) == pytest.approx(50, abs=1)
    assert learnt(0.100, 0.001).tokens(4, 1) == pytest.approx(100, abs=1)


def test_dear_prompts_still_advance_and_cheap_ones_stay_within_the_budget() -> None:
    assert learnt(0.001, 0.1).tokens(4, 1) == 16
    assert learnt(1.0, 0.0001).tokens(4, 1) == MOST - 4
    assert Pace(20).tokens(64, 1) == 16  # prompts never come to a standstill


def test_the_more_prompts_wait_beside_few_answers_the_more_is_read() -> None:
    pace = learnt(0.050, 0.0005)
    assert [pace.tokens(4, waiting) for waiting in (1, 2, 4)] == pytest.approx([100, 100, 200], abs=3)
    assert pace.tokens(4, 64) == MOST - 4


def test_it_follows_when_steps_become_slower() -> None:
    pace = learnt(0.050, 0.001)
    for _ in range(50):
        pace.note(4, 0, 0.2)
        pace.note(4, 100, 0.2 + 100 * 0.001)
    assert pace.tokens(4, 1) == pytest.approx(200, rel=0.1)


def test_it_learns_what_many_answers_cost_while_prompts_are_read_beside_them() -> None:
    """In a burst no step only decodes, and what few answers cost says little of many."""
    pace = Pace(10 * MOST)
    for _ in range(50):
        pace.note(1, 0, 0.013)
    for answers in range(1, 40):
        pace.note(answers, 90, 0.012 + 0.001 * answers + 90 * 0.0005)
    assert pace.tokens(40, 1) == pytest.approx(0.052 / 0.0005, rel=0.1)


def test_one_step_that_the_machine_held_up_changes_little() -> None:
    pace = learnt(0.050, 0.001)
    pace.note(4, 0, 5.0)
    assert pace.tokens(4, 1) < 3 * 50


def test_prompts_alone_teach_it_too() -> None:
    pace = Pace(MOST)
    for _ in range(5):
        pace.note(0, 100, 0.1)
        pace.note(4, 0, 0.05)
    assert pace.tokens(4, 1) == pytest.approx(50, abs=4)


def test_a_clock_that_stands_still_changes_nothing() -> None:
    assert learnt(0.0, 0.0).tokens(4, 1) == MOST - 4
