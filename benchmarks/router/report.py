"""A run as a page of the documentation: what was aimed at, the picture, and every table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.rig.install_peers import wanted
from benchmarks.rig.processes import ROOT
from benchmarks.router import footprint, table
from benchmarks.router.aims import Aim, aims
from benchmarks.router.profile import PROFILE, TITLE
from benchmarks.router.results import Results
from benchmarks.router.summary import lines

PAGE: Final = ROOT / "docs" / "benchmarks.md"
PICTURE: Final = ROOT / "docs" / "images" / "benchmarks.svg"

_HOW: Final = """
Everyone is a process on one core; the load generator and the model that all of them stand before, two programs in C,
have the other. Rounds go through everyone in turn, forth and back. Rates and times are medians of rounds, with their
quartiles; ratios are medians of each round's ratio, so that noise that lasts hits both sides. *Floors*, in italics,
are the bare frameworks, which look at nothing: no router that is built on them can be faster. `direct` is the model
without a router. "By processor" compares what a second of processor gives, which other work on the machine disturbs
less. [How it is measured](../benchmarks/README.md#the-router).
"""


def page(results: Results) -> str:
    """The page in Markdown, up to the last line."""
    parts = ["# What the router costs", "", _made(results), _HOW]
    parts += ["## Aims", "", _aims(aims(results)), ""]
    if results.found.samples:
        picture = PICTURE.relative_to(PAGE.parent)
        parts += [f"![Processor time and first words, by contender]({picture})", ""]
    parts += [tables(results), f"## {TITLE}", PROFILE.rstrip()]
    return "\n".join(parts).rstrip() + "\n"


def tables(results: Results) -> str:
    """All tables of a run."""
    parts = []
    if results.found.samples:
        parts += ["## Calls", "", table.loads(lines(results.found))]
    if results.footprints:
        parts += [f"## {footprint.TITLE.capitalize()}", "", table.footprints(results.footprints), ""]
    for title, variants in results.variants.items():
        parts += [f"## {title.capitalize()}", "", table.variants(title.split()[-1], variants), ""]
    if results.found.failures:
        parts += ["## What could not be measured", "", *(f"- {_one_line(text)}" for text in results.found.failures), ""]
    return "\n".join(parts)


def write(results: Results, page_file: Path = PAGE, picture_file: Path = PICTURE) -> None:
    """Writes the page and its picture."""
    from benchmarks.router import picture  # needs matplotlib

    page_file.write_text(page(results))
    if results.found.samples:
        picture_file.parent.mkdir(exist_ok=True)
        picture.draw(lines(results.found), picture_file)


def _made(results: Results) -> str:
    machine = results.machine
    ours = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    measured = {name.split(",")[0] for _, _, name in results.found.samples} | {one.name for one in results.footprints}
    peers = [package for name, packages in wanted().items() if name in measured for package in packages[:1]]
    beside = f" Beside it {', '.join(peers)}." if peers else ""
    return (
        f"This page is written by `{results.command}`, at commit `{machine.commit}`: {results.rounds} rounds of "
        f"{results.seconds:g} s each. {machine.processor}, {machine.cores} cores, Linux {machine.kernel}, Python "
        f"{machine.python}, {ours}. The load average was {machine.load:.1f} when it began: above 0, others were at "
        f"work, and rates are too low.{beside}"
    )


def _aims(found: Sequence[Aim]) -> str:
    rows = ["| aim | bound | found | |", "|---|---:|---:|---|"]
    for aim in found:
        bound = f"at {'most' if aim.at_most else 'least'} {table.number(aim.bound)}{aim.unit}"
        shown = "-" if aim.found is None else f"{table.number(aim.found)}{aim.unit}"
        word = {None: "not measured", True: "met", False: "missed"}[aim.met]
        rows.append(f"| {aim.what} | {bound} | {shown} | {word} |")
    return "\n".join(rows)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
