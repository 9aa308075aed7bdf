"""How much of waiting prompts a step reads beside those who decode."""

from __future__ import annotations

import pytest

from polyroute.backends.local.worker.pace import Pace

MOST = 256
PROBE = 8  # tokens that a step reads to find out what answers cost


def step(pace: Pace, decoding: int, waiting: int, decode_s: float, token_s: float) -> int:
    """Has the pace see one step as an engine would run it; returns how many tokens it read."""
    tokens = pace.tokens(decoding, waiting) if waiting else 0
    pace.note(decoding, tokens, (decode_s if decoding else 0.0) + tokens * token_s)
    return tokens


def learnt(decode_s: float, token_s: float) -> Pace:
    pace = Pace(MOST)
    step(pace, 0, 1, decode_s, token_s)
    step(pace, 4, 0, decode_s, token_s)
    for _ in range(30):
        step(pace, 4, 1, decode_s, token_s)
    return pace


def test_nobody_to_wait_means_the_whole_budget() -> None:
    assert Pace(MOST).tokens(0, 3) == MOST
    assert learnt(0.01, 0.001).tokens(0, 1) == MOST


def test_before_it_knows_what_answers_cost_a_step_reads_little_and_shows_it() -> None:
    pace = Pace(MOST)
    step(pace, 0, 1, 0.05, 0.001)
    assert pace.tokens(6, 1) == PROBE
    assert step(pace, 6, 1, 0.05, 0.001) == PROBE
    assert pace.tokens(6, 1) == pytest.approx(50, abs=2)


def test_few_prompts_stretch_a_step_to_twice_what_decoding_takes() -> None:
    assert learnt(0.050, 0.001).tokens(4, 1) == pytest.approx(50, abs=1)
    assert learnt(0.100, 0.001).tokens(4, 1) == pytest.approx(100, abs=1)


def test_dear_prompts_still_advance_and_cheap_ones_stay_within_the_budget() -> None:
    assert learnt(0.001, 0.1).tokens(4, 1) == 16
    assert learnt(1.0, 0.0001).tokens(4, 1) == MOST - 4
    crowded = Pace(20)
    step(crowded, 64, 0, 0.05, 0.001)
    assert crowded.tokens(64, 1) == 16  # prompts never come to a standstill


def test_the_more_prompts_wait_beside_few_answers_the_more_is_read() -> None:
    pace = learnt(0.020, 0.001)
    assert [pace.tokens(4, waiting) for waiting in (1, 2, 4)] == pytest.approx([20, 40, 80], abs=3)
    assert pace.tokens(4, 64) == MOST - 4


@pytest.mark.parametrize("faster", [0.5, 4.0])
def test_it_follows_when_answers_become_dearer_or_cheaper(faster: float) -> None:
    pace = learnt(0.050, 0.001)
    for _ in range(300):
        step(pace, 4, 1, 0.05 * faster, 0.001)
    assert pace.tokens(4, 1) == pytest.approx(50 * faster, rel=0.2)


def test_it_learns_what_many_answers_cost_while_prompts_are_read_beside_them() -> None:
    """In a burst no step only decodes, and what few answers cost says little of many."""
    pace = learnt(0.013, 0.0005)
    for answers in range(4, 41):
        for _ in range(2):
            step(pace, answers, 20, 0.012 + 0.001 * answers, 0.0005)
    for _ in range(100):
        step(pace, 40, 1, 0.052, 0.0005)
    assert pace.tokens(40, 1) == pytest.approx(0.052 / 0.0005, rel=0.2)


def test_a_first_step_that_takes_long_is_soon_forgotten() -> None:
    pace = Pace(MOST)
    pace.note(0, MOST, 10 * MOST * 0.001)
    for _ in range(300):
        step(pace, 4, 1, 0.05, 0.001)
    assert pace.tokens(4, 1) == pytest.approx(50, rel=0.2)


def test_a_prompt_of_a_single_token_says_nothing_of_long_ones() -> None:
    """The engine's trial at load is such a step, and all of it is the step's own cost."""
    pace = Pace(MOST)
    pace.note(0, 1, 0.05)
    step(pace, 0, 1, 0.05, 0.001)
    step(pace, 4, 0, 0.05, 0.001)
    assert pace.tokens(4, 1) == pytest.approx(50, abs=1)


def test_a_clock_that_stands_still_changes_nothing() -> None:
    assert learnt(0.0, 0.0).tokens(4, 1) == MOST - 4
