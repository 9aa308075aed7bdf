"""The outcome of a run as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.engine import models
from benchmarks.engine.figures import Figures
from benchmarks.engine.limits import Limits
from benchmarks.engine.rounds import Outcome, Plan

_MEASURES: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("tokens/s", lambda f: f"{f.tokens_per_s:.1f}"),
    ("first token p50 / p99, ms", lambda f: f"{f.first_p50:.0f} / {f.first_p99:.0f}"),
    ("between tokens p50 / p99, ms", lambda f: f"{f.between_p50:.1f} / {f.between_p99:.1f}"),
    ("peak memory while serving, MiB", lambda f: f"{f.peak_mb:.0f}"),
)
_WEIGHT_BYTES = {"bfloat16": 2.0, "float32": 4.0, "int8": 1.0}


def markdown(plan: Plan, outcomes: Sequence[Outcome], limits: Limits) -> str:
    """A table for each measure, an engine a row, a load a column."""
    names = [*map(str, plan.callers), *(["mixed"] if plan.mixed else [])]
    lines = [
        f"## {plan.name}: prompt {plan.prompt}, output {plan.output}, {plan.threads} threads, medians of {plan.rounds}",
        "",
        "Each column is a number of callers, who all ask at the same instant for one answer. "
        f"{limits.name or 'The machine'}: {limits.bytes_per_s / 1e9:.1f} GB/s, "
        f"{limits.flops_per_s / 1e9:.0f} GFLOP/s in {limits.dtype}.",
    ]
    for title, cell in _MEASURES:
        lines += ["", f"| {title} | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
        for outcome in outcomes:
            found = outcome.cases
            cells = [cell(found[name]) if name in found else "-" for name in names]
            lines.append(f"| {outcome.engine} | {' | '.join(cells)} |")
        if cell is _MEASURES[0][1]:
            lines += _limits(plan, limits)
    lines += ["", "| engine | load, s | peak memory while loading, MiB | notes |", "|---|---:|---:|---|"]
    for outcome in outcomes:
        load = f"{median(outcome.load_s):.1f}" if outcome.load_s else "-"
        peak = f"{median(outcome.load_peak_mb):.0f}" if outcome.load_peak_mb else "-"
        note = " ".join((outcome.failure or outcome.note).split()).replace("|", ";")
        lines.append(f"| {outcome.engine} | {load} | {peak} | {note} |")
    return "\n".join(lines) + "\n"


def as_json(plan: Plan, outcomes: Sequence[Outcome], limits: Limits) -> dict[str, Any]:
    """All that was measured, each round for itself too."""
    return {
        "model": plan.name,
        "prompt": plan.prompt,
        "output": plan.output,
        "threads": plan.threads,
        **asdict(limits),
        "engines": {
            str(outcome.engine): {
                "cases": {name: found.as_dict() for name, found in outcome.cases.items()},
                "rounds": {name: [one.as_dict() for one in found] for name, found in outcome.rounds.items()},
                "load_s": outcome.load_s,
                "load_peak_mb": outcome.load_peak_mb,
                "note": outcome.note,
                "failure": outcome.failure,
            }
            for outcome in outcomes
        },
    }


def _limits(plan: Plan, limits: Limits) -> list[str]:
    layers, head = models.weight_count(plan.folder)
    lines = []
    for precision, weight_bytes in _WEIGHT_BYTES.items():
        if limits.device == "cuda" and precision == "int8":
            continue  # no weights of fewer bits there
        bounds = [
            limits.tokens_per_s(layers, head, weight_bytes, callers, plan.prompt, plan.output)
            for callers in plan.callers
        ]
        cells = [f"{bound:.0f}" for bound in bounds] + (["-"] if plan.mixed else [])
        lines.append(f"| *limit: {precision} weights, {limits.dtype} products* | {' | '.join(cells)} |")
    return lines
