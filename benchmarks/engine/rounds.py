"""Runs the engines one after the other, round by round, so that the machine's noise hits them alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.engine import figures
from benchmarks.engine.engines import Engine
from benchmarks.engine.figures import Figures
from benchmarks.engine.process import RunnerFailed, RunnerProcess, run_module
from benchmarks.engine.runner import Options
from benchmarks.engine.workload import Case, Words

_WARM_UP_TOKENS = 8
_MARGIN = 64  # tokens of context beyond the longest answer


@dataclass(frozen=True)
class Plan:
    """What is measured on one model. `callers` at once each ask for `output` tokens after `prompt` tokens."""

    name: str
    folder: Path
    engines: Sequence[Engine]
    callers: Sequence[int]
    prompt: int
    output: int
    rounds: int
    threads: int
    seed: int
    mixed: bool = False
    device: str = "cpu"
    long: int = 1500
    chats: int = 4


@dataclass
class Outcome:
    """What was measured of one engine, by load; `failure` says why there is nothing, or no more."""

    engine: Engine
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    load_s: list[float] = field(default_factory=list)
    load_peak_mb: list[float] = field(default_factory=list)
    note: str = ""
    failure: str = ""

    @property
    def cases(self) -> dict[str, Figures]:
        """Medians of the rounds."""
        return {name: figures.medians(found) for name, found in self.rounds.items()}


def say(text: str) -> None:
    """Tells whoever waits how far things are."""
    print(text, file=sys.stderr, flush=True)


def measure(plan: Plan, tell: Callable[[str], None] = say) -> list[Outcome]:
    """Runs all rounds; an engine that fails is left out of the rounds that follow."""
    outcomes = [Outcome(engine) for engine in plan.engines]
    for number in range(plan.rounds):
        for outcome in outcomes if number % 2 == 0 else outcomes[::-1]:
            if outcome.failure:
                continue
            tell(f"{time.strftime('%H:%M:%S')} {plan.name} round {number + 1}/{plan.rounds}: {outcome.engine}")
            try:
                _round(plan, number, outcome, tell)
            except RunnerFailed as failure:
                outcome.failure = str(failure)
                tell(f"  {outcome.engine} {failure}")
    return outcomes


def cases(plan: Plan, number: int, engine: Engine) -> list[Case]:
    """The loads of a round: equal for all engines, and with prompts that no other load or round has."""
    words = Words(plan.folder, seed=f"load {plan.seed} {number}")
    found = [words.burst(callers, plan.prompt, plan.output) for callers in plan.callers]
    if plan.mixed:
        found.append(words.mixed(chats=plan.chats, prompt=plan.prompt, output=2 * plan.output, long=plan.long))
    kind = engine.kind
    return [case for case in found if case.watched <= kind.most_callers and (case.name != "mixed" or kind.arrivals)]


def _round(plan: Plan, number: int, outcome: Outcome, tell: Callable[[str], None]) -> None:
    loads = cases(plan, number, outcome.engine)
    with RunnerProcess(outcome.engine, _options(plan, outcome.engine)) as runner:
        ready: dict[str, Any] = runner.ready
        outcome.load_s.append(ready["load_s"])
        outcome.load_peak_mb.append(ready["load_peak_mb"])
        outcome.note = ready["note"]
        warm_up = Words(plan.folder, seed=f"warm-up {plan.seed} {number}")
        for callers in (1, 4):
            runner.serve(warm_up.burst(callers, plan.prompt, _WARM_UP_TOKENS))
        for load in loads:
            found = figures.of(load, runner.serve(load))
            outcome.rounds.setdefault(load.name, []).append(found)
            tell(
                f"  {load.name:>5}: {found.tokens_per_s:7.1f} tokens/s, first {found.first_p50:.0f} ms, "
                f"between {found.between_p50:.1f} / {found.between_p99:.1f} ms, {found.peak_mb:.0f} MiB"
            )


def _options(plan: Plan, engine: Engine) -> Options:
    longest = max(plan.prompt + 2 * plan.output, plan.long + plan.output) if plan.mixed else plan.prompt + plan.output
    source = plan.folder
    if engine.kind.gguf:
        source = plan.folder / f"{engine.precision}.gguf"
        if not source.exists():
            run_module("benchmarks.engine.gguf_export", str(plan.folder), str(source), engine.precision)
    return Options(
        folder=str(source),
        precision=engine.precision,
        threads=plan.threads,
        device=plan.device,
        sequences=max(4, *plan.callers, 2 * plan.chats if plan.mixed else 0),
        context=longest + _MARGIN,
    )
