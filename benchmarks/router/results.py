"""All that a run has found, and the file of JSON that keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.rig.programs import Figures
from benchmarks.router.cases import CASES
from benchmarks.router.footprint import Footprint
from benchmarks.router.machine import Machine
from benchmarks.router.rounds import Found, Sample
from benchmarks.router.variants import Rounds, Variant


@dataclass(frozen=True, slots=True)
class Results:
    """Of one run: where and how it was made, the rounds of each cell, and what was found beside them.

    `variants` are the ways to run the router that were compared, by the comparison's title.
    """

    machine: Machine
    command: str
    rounds: int
    seconds: float
    found: Found = field(default_factory=Found)
    footprints: list[Footprint] = field(default_factory=list)
    variants: dict[str, list[Variant]] = field(default_factory=dict)


def save(results: Results, file: Path) -> None:
    """Writes all of it; cells become a list, named by case, protocol, callers and contender."""
    told = asdict(replace(results, found=Found()))  # cells have keys that JSON does not know
    told |= {"cells": [_cell(*item) for item in results.found.samples.items()], "failures": results.found.failures}
    del told["found"]
    file.write_text(json.dumps(told, indent=1) + "\n")


def read(file: Path) -> Results:
    """What `save` has written; raises `KeyError` where a case is no longer there."""
    told: dict[str, Any] = json.loads(file.read_text())
    cases = {(case.name, case.protocol): case for case in CASES}
    samples = {
        (cases[cell["case"], cell["protocol"]], cell["callers"], cell["contender"]): [
            Sample(Figures(**sample["figures"]), sample["cpu_us"]) for sample in cell["rounds"]
        ]
        for cell in told["cells"]
    }
    return Results(
        Machine(**told["machine"]),
        *(told[name] for name in ("command", "rounds", "seconds")),
        Found(samples, told["failures"]),
        [Footprint(**footprint) for footprint in told["footprints"]],
        {title: [_variant(variant) for variant in variants] for title, variants in told["variants"].items()},
    )


def _cell(cell: Any, samples: list[Sample]) -> dict[str, Any]:
    case, callers, name = cell
    where = {"case": case.name, "protocol": case.protocol, "callers": callers, "contender": name}
    return where | {"rounds": [asdict(sample) for sample in samples]}


def _variant(told: dict[str, Any]) -> Variant:
    return Variant(**told | {"rounds": _rounds(told["rounds"]), "bare": _rounds(told.get("bare", {}))})


def _rounds(told: dict[str, Any]) -> Rounds:
    return {protocol: [(Figures(**figures), cpu_us) for figures, cpu_us in rounds] for protocol, rounds in told.items()}
