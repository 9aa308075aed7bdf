"""A report begins with one sentence."""

from __future__ import annotations

import pytest

from polyroute.routing.experiments.findings import ShadowFindings
from polyroute.routing.experiments.interval import Interval
from polyroute.routing.experiments.wording import summary


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        ({}, "3 of 9 pairs with `b` are equal."),
        ({"copy_failed": 0.0, "both_failed": 0.0}, "3 of 9 pairs with `b` are equal."),
        (
            {"copy_failed": 4 / 9, "caller_failed": 1 / 9, "both_failed": 1 / 9},
            "3 of 9 pairs with `b` are equal, 6 lack an answer since a side failed.",
        ),
    ],
)
def test_pairs_without_two_answers_are_not_passed_off_as_different(failed: dict[str, float], said: str) -> None:
    figures = {name: Interval(share, 0.0, 1.0) for name, share in failed.items()}
    shadow = ShadowFindings("b", "v", 9, 3, 0.0, figures, {}, ())
    assert summary("m", 0.0, (), (), (shadow,)) == said
