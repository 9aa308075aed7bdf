"""How two sides of a pair are compared."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyroute.routing.experiments.shadow.pair import MOST_TOKENS, Pair, Side, compared, edit_distance, tokens

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12)


def by_the_book(left: list[str], right: list[str]) -> int:
    """Levenshtein's distance by the table of Wagner and Fischer."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


@settings(deadline=None)
@given(WORDS, WORDS)
def test_the_distance_is_that_of_the_table_over_the_longer_one(left: list[str], right: list[str]) -> None:
    longest = max(len(left), len(right))
    expected = by_the_book(left, right) / longest if longest else 0.0
    assert edit_distance(" ".join(left), " ".join(right)) == pytest.approx(expected)


def test_tokens_are_words_and_marks() -> None:
    assert tokens("It's 3.5, isn't it?") == ["It", "'", "s", "3", ".", "5", ",", "isn", "'", "t", "it", "?"]
    assert len(tokens("a " * 10_000)) == MOST_TOKENS


def test_two_answers_are_compared() -> None:
    caller = Side(text="one two three", finish_reason="STOP", completion_tokens=4, first_token_s=0.1, total_s=1.0)
    copy = Side(text="one two four", finish_reason="LENGTH", completion_tokens=8, first_token_s=0.2, total_s=3.0)
    assert compared(caller, copy) == {
        "exact": False,
        "edit_distance": pytest.approx(1 / 3),
        "length_ratio": 2.0,
        "same_finish": False,
        "first_token_ratio": 2.0,
        "total_ratio": 3.0,
    }


def test_times_that_say_nothing_of_the_model_are_not_compared() -> None:
    figures = compared(Side(text="a", completion_tokens=0), Side(text="a", first_token_s=0.2, total_s=3.0))
    assert (figures["exact"], figures["edit_distance"]) == (True, 0.0)
    assert (figures["first_token_ratio"], figures["total_ratio"], figures["length_ratio"]) == (None, None, None)


def test_an_error_has_no_figures() -> None:
    assert compared(Side(outcome="PEER_FAILED"), Side()) == {}
    assert compared(Side(), Side(outcome="PEER_FAILED")) == {}


@pytest.mark.parametrize(
    ("missing", "caller", "copy", "result"),
    [
        ("", "ok", "ok", "compared"),
        ("", "ok", "PEER_FAILED", "copy_failed"),
        ("", "PEER_FAILED", "ok", "caller_failed"),
        ("", "PEER_FAILED", "WORKER_DIED", "both_failed"),
        ("queue_full", "", "", "queue_full"),
    ],
)
def test_a_pair_says_which_side_has_failed(missing: str, caller: str, copy: str, result: str) -> None:
    pair = Pair(0.0, "p", "r", "chat", "two", missing=missing, caller_outcome=caller, copy_outcome=copy)
    assert pair.result == result
