"""The figures of a run as tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from benchmarks.router.cases import PROTOCOLS
from benchmarks.router.footprint import Footprint
from benchmarks.router.rounds import counted
from benchmarks.router.summary import Line, Spread
from benchmarks.router.variants import Variant

_HEADS = (
    ("", "---"),
    ("{unit} a second", "---:"),
    ("quartiles", "---:"),
    ("of the floor", "---:"),
    ("by processor", "---:"),
    ("p50 / p99, us", "---:"),
    ("first word p50, us", "---:"),
    ("us of processor {each}", "---:"),
    ("ours gives", "---:"),
)


def loads(lines: Sequence[Line]) -> str:
    """A table for each load: a contender a row."""
    parts: list[str] = []
    for (case, callers), group in groupby(lines, key=lambda line: (line.case, line.callers)):
        unit, each = ("words", "a word") if case.by_words else ("answers", "an answer")
        heads = [head.format(unit=unit, each=each) for head, _ in _HEADS]
        parts += [f"### {case.title}, {counted(callers)}", ""]
        parts += [_row(heads), _row([rule for _, rule in _HEADS])]
        parts += [_row(_cells(line)) for line in group]
        parts += [""]
    return "\n".join(parts)


def footprints(found: Sequence[Footprint]) -> str:
    """A server and protocol a row."""
    heads = ["", "over", "start, s", "MB then", "calls", "MB after a tenth", "MB after all", "KB an open stream", "of"]
    rows = [
        [
            one.name,
            PROTOCOLS[one.protocol],
            f"{one.start_s:.2f}",
            f"{one.start_mb:.0f}",
            f"{one.calls:,}",
            f"{one.tenth_mb:.0f}",
            f"{one.calls_mb:.0f}",
            "-" if one.stream_kb is None else number(one.stream_kb),
            f"{one.streams:,}",
        ]
        for one in found
    ]
    return "\n".join([_row(heads), _row(["---", "---", *["---:"] * 7]), *map(_row, rows)])


def variants(title: str, found: Sequence[Variant]) -> str:
    """A way to run the router a row; ratios are to the first, those of the bare floor beside ours."""
    heads = [title, "start, s", "MB then", "of a core, idle"]
    for protocol in found[0].rounds:
        heads += [f"{PROTOCOLS[protocol]}: answers a second", "times the first", "us of processor an answer"]
        heads += ["bare: times the first", "bare: us of processor"] if protocol in found[0].bare else []
    lines = [_row(heads), _row(["---:"] * len(heads))]
    for one in found:
        cells = [one.name, f"{one.start_s:.2f}", f"{one.start_mb:.0f}", f"{one.idle_share:.1%}"]
        for protocol in one.rounds:
            times = one.times(found[0], protocol)
            cells += [number(one.per_s(protocol)), f"{times:.2f}", number(one.cpu_us(protocol))]
            if (bare := one.bare_times(found[0], protocol)) is not None:
                cells += [f"{bare:.2f}", number(one.bare_cpu_us(protocol))]
        lines.append(_row(cells))
    return "\n".join(lines)


def number(value: float) -> str:
    """With three significant digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(line: Line) -> list[str]:
    floor = line.case.floors[0] == line.name
    added = f" (+{number(line.added_first_us)})" if line.added_first_us is not None and line.callers == 1 else ""
    return [
        f"*{line.name}*" if line.name in line.case.floors else line.name,
        number(line.rate.median),
        _quartiles(line.rate),
        "1" if floor else _ratio(line.of_floor),
        "1" if floor else _ratio(line.of_floor_by_cpu),
        f"{number(line.p50_us)} / {number(line.p99_us)}",
        f"{number(line.first_us)}{added}" if line.case.by_words else "-",
        number(line.cpu_us.median) if line.cpu_us else "-",
        _beside(line),
    ]


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _beside(line: Line) -> str:
    if line.ours_is is None:
        return "-"
    by_cpu = f", {line.ours_is_by_cpu:.2g} by processor" if line.ours_is_by_cpu else ""
    return f"{line.ours_is:.2g} times{by_cpu}"


def _quartiles(spread: Spread) -> str:
    return f"{number(spread.low)} - {number(spread.high)}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
