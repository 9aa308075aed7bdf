"""The benchmark of metrics runs, and counts what it says."""

from __future__ import annotations

from benchmarks.metrics.measure import measure


def test_figures_of_a_few_models() -> None:
    few, more = measure(1, 10), measure(3, 10)
    assert 150 < (more.series - few.series) / 2 < 250  # each model adds as many
    assert few.render_s > 0
    assert few.openmetrics_s > 0
    assert few.call_us > 0
