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


def test_as_many_prompts_as_answers_get_the_whole_budget() -> None:
    pace = learnt(0.050, 0.001)
    assert pace.tokens(4, 3) < MOST - 4
    assert pace.tokens(4, 4) == MOST - 4


def test_it_follows_when_steps_become_slower() -> None:
    pace = learnt(0.050, 0.001)
    for _ in range(50):
        pace.note(4, 0, 0.2)
    assert pace.tokens(4, 1) == pytest.approx(200, abs=3)


def test_prompts_alone_teach_it_too() -> None:
    pace = Pace(MOST)
    pace.note(0, 100, 0.1)
    pace.note(4, 0, 0.05)
    assert pace.tokens(4, 1) == pytest.approx(50, abs=1)


def test_a_clock_that_stands_still_changes_nothing() -> None:
    assert learnt(0.0, 0.0).tokens(4, 1) == MOST - 4
