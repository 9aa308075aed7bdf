"""The run as a picture: for four kinds of calls, what each contender takes for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.router.cases import DIRECT, OURS
from benchmarks.router.summary import Line
from benchmarks.router.table import number

_OURS, _FLOOR, _PEER = "#d9480f", "#adb5bd", "#4c6ef5"
_NARROW: Final = 4.0


@dataclass(frozen=True, slots=True)
class _Panel:
    """Some of the lines as bars, by one figure."""

    title: str
    cases: tuple[str, ...]
    figure: Callable[[Line], float | None]
    callers: int = 32


_PANELS: Final = (
    _Panel("miss: us of processor an answer", ("unary-miss",), lambda line: line.cpu_us and line.cpu_us.median),
    _Panel("hit: us of processor an answer", ("memory-hit",), lambda line: line.cpu_us and line.cpu_us.median),
    _Panel("stream: us of processor a word", ("stream-burst",), lambda line: line.cpu_us and line.cpu_us.median),
    _Panel("first word: us later than without a router", ("first-token",), lambda line: line.added_first_us, 1),
)


def draw(lines: Sequence[Line], file: Path) -> None:
    """Writes the picture as SVG; the same lines give the same bytes."""
    drawn = [(panel, bars) for panel in _PANELS if (bars := _bars(panel, lines))]
    with mpl.rc_context({"svg.hashsalt": "polyroute", "font.size": 8}):
        figure = Figure(figsize=(9, sum(0.7 + 0.22 * len(bars) for _, bars in drawn) or _NARROW), layout="constrained")
        heights = [3 + len(bars) for _, bars in drawn]
        axes = figure.subplots(len(drawn), 1, squeeze=False, height_ratios=heights)[:, 0] if drawn else []
        for (panel, bars), axis in zip(drawn, axes, strict=True):
            _draw(axis, panel, bars)
        figure.savefig(file, format="svg", metadata={"Date": None})


def _bars(panel: _Panel, lines: Sequence[Line]) -> list[tuple[str, float, str]]:
    """Label, length and colour of each, the shortest first."""
    found = []
    for line in lines:
        value = panel.figure(line)
        if line.case.name in panel.cases and line.callers == panel.callers and line.name != DIRECT and value:
            over = "gRPC" if line.case.protocol == "grpc" else "REST"
            colour = _FLOOR if line.name in line.case.floors else _OURS if line.name.startswith(OURS) else _PEER
            found.append((f"{line.name}, {over}", value, colour))
    return sorted(found, key=lambda bar: bar[1])


def _draw(axis: Any, panel: _Panel, bars: Sequence[tuple[str, float, str]]) -> None:
    labels, values, colours = zip(*bars, strict=True)
    drawn = axis.barh(labels, values, color=colours)
    axis.bar_label(drawn, [number(value) for value in values], padding=3)
    axis.set_xscale("log")
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_title(panel.title, loc="left", fontweight="bold")
    axis.spines[["top", "right"]].set_visible(False)
