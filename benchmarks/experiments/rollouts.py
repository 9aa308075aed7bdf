"""Rollouts of healthy and of bad versions: how they end, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Final, TypeAlias

from benchmarks.experiments.flagger import Gate
from benchmarks.experiments.traffic import Version, arrivals, outcome
from polyroute.core.backend import ModelState
from polyroute.core.config import RolloutConfig
from polyroute.routing.experiments.rollout.comparison import Comparison
from polyroute.routing.experiments.rollout.decision import Standing, State, decide
from polyroute.routing.experiments.rollout.evidence import Evidence
from polyroute.routing.experiments.rollout.rollouts import LOOK_S

OLD: Final = Version()
VERSIONS: Final = {
    "healthy": OLD,
    "20% failing": Version(failing=0.2),
    "5% failing": Version(failing=0.05),
    "2x slower": Version(slower=2.0),
}
RATES: Final = (6, 60, 600)
"""Calls a minute, of both versions together."""

PLAN: Final = RolloutConfig.model_validate(
    {
        "from": "old",
        "to": "new",
        "steps": [{"weight": weight, "hold": "10m", "min_samples": 50} for weight in (0.05, 0.25, 0.5)],
    }
)
_LONGEST_S: Final = 14 * 86400.0


@dataclass(frozen=True, slots=True)
class Course:
    """How one rollout went: where it was after `seconds`, how many calls the new version had, and how many failed."""

    state: State
    seconds: float
    calls: int
    failed: int


Run: TypeAlias = Callable[[Version, float, random.Random], Course]


def rolled_out(new: Version, per_minute: float, rng: random.Random, plan: RolloutConfig = PLAN) -> Course:
    """One rollout by the code that serves it, looked at once a second as there, where the new version had a call."""
    comparison, standing = Comparison(Evidence(), plan.consecutive_failures), Standing(State.RUNNING)
    calls = failed = 0
    looked, fresh = 0.0, False
    for now in arrivals(per_minute, rng):
        newer = rng.random() < standing.weight(plan)
        ended = outcome(new if newer else OLD, now, rng)
        calls, failed = calls + newer, failed + (newer and ended.failed)
        if ended.failed:
            comparison.failed(newer)
        else:
            comparison.answered(newer, ended.first_token_s, ended.total_s)
        fresh = fresh or newer
        if not fresh or (now < looked + LOOK_S and not comparison.stop):
            continue
        looked, fresh = now, False
        found = decide(plan, standing, comparison.evidence(), ModelState.WARM, ModelState.WARM, now)
        if found is not None:
            standing = found.to
        if standing.state.ended or standing.state is State.INCONCLUSIVE or now > _LONGEST_S:
            return Course(standing.state, now, calls, failed)
    raise AssertionError("arrivals do not end")


def gated(new: Version, per_minute: float, rng: random.Random) -> Course:
    """One rollout by a gate of fixed windows."""
    gate = Gate()
    calls = failed = 0
    for now in arrivals(per_minute, rng):
        gate.look(now)
        if gate.ended is not None:
            state = State.PROMOTED if gate.ended else State.ROLLED_BACK
            return Course(state, gate.now, calls, failed)
        if rng.random() < gate.weight:
            ended = outcome(new, now, rng)
            calls, failed = calls + 1, failed + ended.failed
            gate.saw(ended)
    raise AssertionError("arrivals do not end")


def table(run: Run, runs: int, seed: int) -> Iterator[str]:
    """Rows of a Markdown table: a version at a rate each."""
    for title, version in VERSIONS.items():
        for rate in RATES:
            courses = [run(version, rate, random.Random(f"{seed} {title} {rate} {i}")) for i in range(runs)]
            yield f"| {title} | {rate} | {_row(courses)} |"


def _row(courses: list[Course]) -> str:
    back = [course for course in courses if course.state is State.ROLLED_BACK]
    promoted = [course for course in courses if course.state is State.PROMOTED]
    cells = [f"{len(back) / len(courses):.1%}", f"{len(promoted) / len(courses):.1%}"]
    for ended in (back, promoted):
        minutes = sorted(course.seconds / 60 for course in ended)
        cells.append(f"{median(minutes):.0f} ({minutes[int(0.9 * len(minutes))]:.0f})" if minutes else "-")
    cells.append(f"{median(course.calls for course in back):.0f}" if back else "-")
    return " | ".join(cells)
