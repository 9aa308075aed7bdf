"""A hanging replica does not use up the whole deadline, and a working one is not cut short."""

from __future__ import annotations

import pytest

from polyroute.backends.pool.first_tokens import FirstTokens
from polyroute.backends.pool.patience import patience


def known(seconds: float | None) -> FirstTokens:
    times = FirstTokens()
    for _ in range(0 if seconds is None else 30):
        times.add(seconds or 0.0)
    return times


@pytest.mark.parametrize(
    ("known_s", "left_s", "share_s"),
    [
        (None, 10.0, 5.0),  # one more may follow: half of it each
        (1.0, 10.0, 5.0),
        (4.0, 20.0, 10.0),
        (4.0, 14.0, 8.0),  # no less than twice what calls usually need
        (4.0, 11.0, 60.0),  # then nothing would be left for another: all of it
        (1.0, 1000.0, 60.0),
    ],
)
def test_an_attempt_gets_a_share_of_the_deadline(known_s: float | None, left_s: float, share_s: float) -> None:
    given = patience(60.0, left_s, 1, known(known_s), trial=False)
    assert given.seconds == pytest.approx(share_s)
    assert given.hurried == (known_s is None)


def test_the_share_is_by_how_many_may_follow() -> None:
    assert patience(60.0, 12.0, 3, known(0.1), trial=False).seconds == 3.0


@pytest.mark.parametrize("trial", [False, True])
def test_the_last_attempt_gets_all_there_is(trial: bool) -> None:
    assert patience(60.0, 10.0, 0, known(1.0), trial=trial).seconds == 60.0


@pytest.mark.parametrize(("known_s", "trial_s"), [(None, 60.0), (0.1, 1.0), (4.0, 8.0)])
def test_a_trial_gets_what_calls_usually_need(known_s: float | None, trial_s: float) -> None:
    assert patience(60.0, None, 1, known(known_s), trial=True).seconds == trial_s
    assert patience(60.0, None, 1, known(known_s), trial=False).seconds == 60.0
