"""The few kinds of panel and the one shape of dashboard that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh

Panel: TypeAlias = timeseries.Panel | stat.Panel

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
EVERY: Final = "$__rate_interval"
"""The range of rates: four scrapes at least, and more where the graph shows a long time."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice above the dashboard: the values of `label` in `metric`, several at a time, or all."""

    name: str
    metric: str
    label: str


def lines(
    title: str, means: str, unit: str, *queries: tuple[str, str], stacked: bool = False, span: int = 8
) -> timeseries.Panel:
    """Graphs over time: each query is an expression and the legend of its lines. `span` is of 24 columns."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(means)
        .unit(unit)
        .min(0)
        .datasource(SOURCE)
        .span(span)
        .height(8)
        .draw_style(GraphDrawStyle.LINE)
        .show_points(VisibilityMode.NEVER)
        .fill_opacity(25 if stacked else 5)
        .line_width(1)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for i, (expression, legend) in enumerate(queries):
        panel = panel.with_target(_query(expression, i).legend_format(legend).exemplar("_bucket" in expression))
    return panel


def number(title: str, means: str, unit: str, expression: str, *, span: int = 4) -> stat.Panel:
    """One figure as it is now."""
    return (
        stat.Panel()
        .title(title)
        .description(means)
        .unit(unit)
        .datasource(SOURCE)
        .span(span)
        .height(4)
        .with_target(_query(expression, 0).instant())
    )


def quantile(q: float, metric: str, by: str, where: str = "") -> str:
    """A quantile of a histogram over the labels `by`, of the series that match `where`."""
    labels = ", ".join(("le", *filter(None, (by,))))
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', labels, where)})"


def mean(metric: str, by: str, where: str = "") -> str:
    """The mean of a histogram's values."""
    return f"{rate(f'{metric}_sum', by, where)} / {rate(f'{metric}_count', by, where)}"


def rate(metric: str, by: str, where: str = "") -> str:
    """Events a second, by labels."""
    series = f"{metric}{{{where}}}" if where else metric
    return f"sum by ({by}) (rate({series}[{EVERY}]))"


def board(
    uid: str, title: str, means: str, rows: Sequence[tuple[str, Sequence[Panel]]], variables: Sequence[Variable] = ()
) -> Dashboard:
    """A dashboard of titled rows, over the last hour, with a choice of data source above it."""
    made = (
        Dashboard(f"Polyroute / {title}")
        .uid(f"polyroute-{uid}")
        .description(means)
        .tags(["polyroute"])
        .time("now-1h", "now")
        .refresh("15s")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable in variables:
        made = made.with_variable(
            QueryVariable(variable.name)
            .datasource(SOURCE)
            .query(f"label_values({variable.metric}, {variable.label})")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    for name, panels in rows:
        made = made.with_row(Row(name))
        for panel in panels:
            made = made.with_panel(panel)
    return made


def _query(expression: str, place: int) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).ref_id(chr(ord("A") + place)).datasource(SOURCE)
