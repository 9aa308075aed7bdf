"""`polyroute experiment`: what an experiment has shown, as a table, JSON, CSV or picture."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polyroute.client.cli.admin import ask, route_argument
from polyroute.client.cli.options import POSITIVE, Server, admin_options, json_option
from polyroute.client.cli.printing import plain, print_json, print_table

if TYPE_CHECKING:
    from polyroute.client.operations import Comparison, ExperimentReport, ShadowReport, VariantReport

_NEVER = 1_000_000_000
_KINDS = (".png", ".svg", ".pdf")


@click.group()
def experiment() -> None:
    """Report what an experiment has shown."""


def _picture_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in _KINDS:
        raise click.BadParameter(f"`{value}` ends in none of {', '.join(_KINDS)}", ctx, param)
    return value


@experiment.command("report")
@route_argument
@click.option("--last", type=POSITIVE, metavar="HOURS", help="Count the calls of the last so many hours alone.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the figures as CSV.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_picture_file,
    metavar="FILE",
    help="Draw the intervals over time into FILE, a .png, .svg or .pdf (needs the `plots` extra).",
)
@click.option(
    "--worst",
    type=click.IntRange(1, 20),
    metavar="COUNT",
    help="Show so many of each shadow's pairs that differ most, with their texts where the route records content.",
)
@json_option
@admin_options
def report(
    route: str,
    last: float | None,
    as_csv: bool,
    picture: Path | None,
    worst: int | None,
    as_json: bool,
    server: Server,
) -> None:
    """Show what ROUTE's experiment has shown so far. Looking often does no harm: every interval allows for it."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json: give one of them")
    if picture is not None:
        from polyroute.client.cli.picture import drawing

        draw = drawing()
    since = None if last is None else datetime.now(UTC) - timedelta(hours=last)
    found = ask(server, lambda admin: admin.experiment_report(route, since=since, over_time=picture is not None))
    if picture is not None:
        draw(found, picture)
    if as_json:
        print_json(found)
    elif as_csv:
        _print_csv(found)
    else:
        _print(found)
        _print_worst(found, worst or 0)


def _print(found: ExperimentReport) -> None:
    click.echo(plain(f"{found.route}: {found.summary}"))
    ratio = found.sample_ratio
    if ratio is not None and (found.variants or not ratio.ok):
        said = "as configured" if ratio.ok else "NOT as configured"
        click.echo(f"  traffic was split {said} (e-value {ratio.e_value:.3g})")
    for note in found.notes:
        click.echo(plain(f"  {note}"))
    _print_metrics("variant", found.variants)
    compared = [
        (
            f"{c.variant} - {c.control}",
            c.evidence.metric,
            f"{c.evidence.difference:+.3g}",
            _ends(c.evidence.lower, c.evidence.upper),
            f"{c.evidence.e_value:.3g}",
            "guardrail" if c.guardrail else "",
            _needed(c),
        )
        for c in found.comparisons
        if c.evidence is not None
    ]
    if compared:
        print_table(("difference", "metric", "value", "95% interval", "e-value", "", "decided"), compared)
    _print_metrics("pinned variant", found.pinned)
    _print_shadows(found)


def _print_metrics(name: str, variants: Iterable[VariantReport]) -> None:
    rows = [
        (
            v.name,
            v.version or "-",
            f"{v.expected_share:.0%}",
            m.metric,
            _with_unit(m.value, m.unit),
            _ends(m.lower, m.upper),
            str(m.samples),
        )
        for v in variants
        for m in v.metrics
    ]
    if rows:
        print_table((name, "version", "share", "metric", "value", "95% interval", "answers"), rows)


def _print_shadows(found: ExperimentReport) -> None:
    for shadow in found.shadows:
        missing = ", ".join(f"{count} {cause}" for cause, count in sorted(shadow.missing.items()))
        click.echo(
            plain(
                f"shadow {shadow.deployment}: {shadow.pairs} pairs, {shadow.exact_matches} equal, mean edit distance "
                f"{shadow.mean_edit_distance:.3g}" + (f"; not compared: {missing}" if missing else "")
            )
        )
        rows = [
            (name, f"{figure['value']:.4g}", _ends(figure["lower"], figure["upper"]))
            for name, figure in _figures(shadow)
            if figure["value"] is not None
        ]
        if rows:
            print_table(("of pairs", "value", "95% interval"), rows)


def _print_worst(found: ExperimentReport, most: int) -> None:
    """Pairs as they differ: what was asked, what the caller got, and what the copy said."""
    for shadow in found.shadows:
        for pair in shadow.figures.get("worst", [])[:most]:
            click.echo(
                plain(
                    f"pair {pair['pair_id']} of request {pair['request_id']}: edit distance {pair['edit_distance']:.3g}"
                )
            )
            for name, of in (("asked", "prompt"), ("caller", "caller_text"), (shadow.deployment, "copy_text")):
                if of in pair:
                    click.echo(plain(f"  {name}: {' '.join(pair[of].split())}"))


def _print_csv(found: ExperimentReport) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("kind", "variant", "control", "version", "metric", "unit", "value", "lower", "upper", "e_value", "n"))
    for kind, variants in (("estimate", found.variants), ("pinned", found.pinned)):
        for v in variants:
            for m in v.metrics:
                out.writerow((kind, v.name, "", v.version, m.metric, m.unit, m.value, m.lower, m.upper, "", m.samples))
    for c in found.comparisons:
        if c.evidence is not None:
            e = c.evidence
            n = e.samples_from + e.samples_to
            out.writerow(
                ("difference", c.variant, c.control, "", e.metric, "", e.difference, e.lower, e.upper, e.e_value, n)
            )
    for s in found.shadows:
        for name, f in _figures(s):
            ends = (f["value"], f["lower"], f["upper"])
            out.writerow(("pairs", s.deployment, "", s.figures["version"], name, "", *ends, "", s.pairs))
        for cause, count in sorted(s.missing.items()):
            out.writerow(("missing pairs", s.deployment, "", "", cause, "", "", "", "", "", count))


def _figures(shadow: ShadowReport) -> list[tuple[str, Mapping[str, float | None]]]:
    """The figures that have an interval, by name: a structure of protobuf keeps no order."""
    return [(name, figure) for name, figure in sorted(shadow.figures.items()) if isinstance(figure, Mapping)]


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.4g}" if unit in ("", "1") else f"{value:.4g} {unit}"


def _ends(lower: float | None, upper: float | None) -> str:
    """An interval; `-` where too few answers are known for one."""
    if (lower is None or lower == -math.inf) and (upper is None or upper == math.inf):
        return "-"
    return f"[{-math.inf if lower is None else lower:.3g}, {math.inf if upper is None else upper:.3g}]"


def _needed(comparison: Comparison) -> str:
    if comparison.samples_needed == 0:
        return "yes"
    if comparison.samples_needed >= _NEVER:
        return "not in sight"
    return f"after about {comparison.samples_needed:,} more"
