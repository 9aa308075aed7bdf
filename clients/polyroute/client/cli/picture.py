"""Draws the intervals of a report over time; matplotlib is imported only for that."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from polyroute.client.operations import ExperimentReport, MetricSeries

_ACROSS = 2
_INCHES = (6.0, 3.2)
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito's, told apart by all


def drawing() -> Callable[[ExperimentReport, Path], None]:
    """What draws a report into a file; raises `click.ClickException` where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise click.ClickException(f"pictures need matplotlib: pip install 'polyroute[plots]' ({error})") from error

    def draw(report: ExperimentReport, file: Path) -> None:
        metrics = list(dict.fromkeys(series.metric for series in report.series))
        if not metrics:
            raise click.ClickException(f"`{report.route}` has no answers yet that could be drawn")
        across = min(_ACROSS, len(metrics))
        down = math.ceil(len(metrics) / across)
        figure = Figure(figsize=(_INCHES[0] * across, _INCHES[1] * down), layout="constrained")
        figure.suptitle(f"{report.route}: {report.summary}", fontsize="medium", wrap=True)
        for place, metric in enumerate(metrics):
            _panel(figure.add_subplot(down, across, place + 1), metric, report.series)
        try:
            figure.savefig(file)
        except OSError as error:
            raise click.ClickException(f"{file}: {error.strerror or error}") from error

    return draw


def _panel(axes: Any, metric: str, series: Sequence[MetricSeries]) -> None:
    """One metric: each variant's estimate as a line in the band of its interval."""
    mine = [one for one in series if one.metric == metric]
    for colour, one in zip(_COLOURS * len(mine), mine, strict=False):
        known = [p for p in one.points if p.time is not None and math.isfinite(p.lower) and math.isfinite(p.upper)]
        times = [point.time for point in known]
        axes.plot(times, [point.value for point in known], color=colour, label=one.variant, marker=".", markersize=3)
        axes.fill_between(
            times, [point.lower for point in known], [point.upper for point in known], color=colour, alpha=0.15
        )
    axes.set_title(metric, fontsize="small", loc="left")
    axes.tick_params(labelsize="x-small")
    axes.legend(fontsize="x-small")
    for label in axes.get_xticklabels():
        label.set_rotation(20)
