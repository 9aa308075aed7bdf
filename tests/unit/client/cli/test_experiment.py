"""A report on a screen shows what there is, and no empty tables or intervals."""

from __future__ import annotations

import pytest

from polyroute.client.cli.experiment import _print
from polyroute.client.operations import (
    ExperimentReport,
    MetricEstimate,
    SampleRatioCheck,
    ShadowReport,
    VariantReport,
)


def test_a_shadow_alone_has_no_variants_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    shadow = ShadowReport("shade", pairs=5, exact_matches=5)
    _print(ExperimentReport("mirrored", "5 of 5.", SampleRatioCheck(True, 1.0), shadows=(shadow,)))
    first, second = capsys.readouterr().out.splitlines()
    assert first == "mirrored: 5 of 5."
    assert second.startswith("shadow shade: 5 pairs, 5 equal")


def test_an_interval_that_is_not_known_yet_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = (
        MetricEstimate("total_s", "s", 0.5, float("-inf"), float("inf"), 3),
        MetricEstimate("error_rate", "1", 0.0, 0.0, 0.7, 3),
    )
    _print(ExperimentReport("chat", "Nothing yet.", variants=(VariantReport("a", "m", "v", metrics=metrics),)))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert rows[0][-4:] == ["0.5", "s", "-", "3"]
    assert rows[1][-3:] == ["[0,", "0.7]", "3"]


def test_what_callers_pinned_has_a_table_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = (MetricEstimate("preferred", "1", 0.75, float("-inf"), float("inf"), 4),)
    _print(ExperimentReport("chat", "Nothing yet.", pinned=(VariantReport("a", "m", "v", 4, metrics=metrics),)))
    head, row = capsys.readouterr().out.splitlines()[-2:]
    assert head.startswith("pinned variant")
    assert [cell for cell in row.split() if cell != "%"] == ["a", "v", "0%", "preferred", "0.75", "-", "4"]
