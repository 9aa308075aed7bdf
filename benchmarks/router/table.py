"""The figures of a run as tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from benchmarks.router.summary import Line, Spread

_HEADS = (
    ("", "---"),
    ("{unit} a second", "---:"),
    ("quartiles", "---:"),
    ("of the floor", "---:"),
    ("p50 / p99, us", "---:"),
    ("first word p50, us", "---:"),
    ("us of processor {each}", "---:"),
    ("ours gives", "---:"),
)


def markdown(lines: Sequence[Line]) -> str:
    """A table for each load: a contender a row."""
    parts = []
    for (case, callers), group in groupby(lines, key=lambda line: (line.case, line.callers)):
        unit, each = ("words", "a word") if case.by_words else ("answers", "an answer")
        heads = [head.format(unit=unit, each=each) for head, _ in _HEADS]
        parts += [f"### {case.title}, {_counted(callers)}", ""]
        parts += [_row(heads), _row([rule for _, rule in _HEADS])]
        parts += [_row(_cells(line)) for line in group]
        parts += [""]
    return "\n".join(parts)


def number(value: float) -> str:
    """With three significant digits, or all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cells(line: Line) -> list[str]:
    floor = line.case.floors[0] == line.name
    added = f" (+{number(line.added_first_us)})" if line.added_first_us is not None else ""
    return [
        f"*{line.name}*" if line.name in line.case.floors else line.name,
        number(line.rate.median),
        _quartiles(line.rate),
        "1" if floor else "-" if line.of_floor is None else f"{line.of_floor:.2f}",
        f"{number(line.p50_us)} / {number(line.p99_us)}",
        f"{number(line.first_us)}{added}" if line.case.by_words else "-",
        number(line.cpu_us.median) if line.cpu_us else "-",
        _beside(line),
    ]


def _beside(line: Line) -> str:
    if line.ours_is is None:
        return "-"
    by_cpu = f", {line.ours_is_by_cpu:.2g} by processor" if line.ours_is_by_cpu else ""
    return f"{line.ours_is:.2g} times{by_cpu}"


def _quartiles(spread: Spread) -> str:
    return f"{number(spread.low)} - {number(spread.high)}"


def _counted(callers: int) -> str:
    return "1 caller" if callers == 1 else f"{callers:,} callers"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
