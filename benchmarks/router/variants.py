"""The router beside itself: over more models, and with more processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.rig.floors import WORDS
from benchmarks.rig.programs import Figures, load
from benchmarks.rig.workload import UNIQUE, Ask
from benchmarks.router.contenders import Contender, Ours, Place, model_name, ours

SIZES: Final = (1, 10, 1_000, 10_000)
WORKERS: Final = (1, 2)
_IDLE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ways to run the router that are compared, by what each is called; `callers` ask each of them for misses."""

    title: str
    ways: dict[str, Ours]
    callers: int


@dataclass(frozen=True, slots=True)
class Variant:
    """The router run one way. `rounds` by protocol are each a load's figures and the processor's time for an answer.

    `idle_share` is the share of a core that it takes while nobody calls.
    """

    name: str
    start_s: float
    start_mb: float
    idle_share: float
    rounds: dict[str, list[tuple[Figures, float]]]

    def per_s(self, protocol: str) -> float:
        """Answers a second, the median of the rounds."""
        return median(figures.per_s for figures, _ in self.rounds[protocol])

    def cpu_us(self, protocol: str) -> float:
        """Microseconds of processor an answer, the median of the rounds."""
        return median(cpu_us for _, cpu_us in self.rounds[protocol])

    def times(self, first: Variant, protocol: str) -> float:
        """How many times the answers of `first` it gives, the median of each round's ratio."""
        pairs = zip(self.rounds[protocol], first.rounds[protocol], strict=True)
        return median(mine.per_s / its.per_s for (mine, _), (its, _) in pairs)


def many_models(sizes: Sequence[int], callers: int = 32) -> Comparison:
    """Registries of so many models, each call to another one."""
    return Comparison("many models", {f"{size:,}": Ours(models=size) for size in sizes}, callers)


def many_workers(counts: Sequence[int], callers: int = 64) -> Comparison:
    """So many processes on as many cores, the first of which is core 0."""
    ways = {
        f"{count:,}": Ours(cores=f"0-{count - 1}", flags=("--workers", str(count)) if count > 1 else ())
        for count in counts
    }
    return Comparison("several workers", ways, callers)


def measure(
    comparison: Comparison,
    protocols: Sequence[str],
    rounds: int,
    seconds: float,
    place: Place,
    tell: Callable[[str], None],
) -> list[Variant]:
    """All ways side by side, in turns; raises `CannotRun`."""
    with ExitStack() as stack:
        up: list[tuple[Variant, Contender, Ours]] = []
        for name, how in comparison.ways.items():
            tell(f"{time.strftime('%H:%M:%S')} {comparison.title}: starting {name}")
            begun = time.monotonic()
            contender = stack.enter_context(ours(how, place, f"polyroute {comparison.title} {name}"))
            start_s, start_mb = time.monotonic() - begun, contender.process.rss_mb
            up.append((Variant(name, start_s, start_mb, _idle(contender), {p: [] for p in protocols}), contender, how))
        for number in range(rounds):
            for variant, contender, how in up if number % 2 == 0 else up[::-1]:
                for protocol in protocols:
                    came = _round(contender, how.models, protocol, comparison.callers, seconds, place)
                    variant.rounds[protocol].append(came)
                    what = f"  {comparison.title}, {variant.name}, {protocol}"
                    tell(f"{what}: {came[0].per_s:,.0f} a second, {came[1]:,.0f} us of processor an answer")
        return [variant for variant, _, _ in up]


def _round(
    contender: Contender, models: int, protocol: str, callers: int, seconds: float, place: Place
) -> tuple[Figures, float]:
    ask = Ask(WORDS, slot=UNIQUE, model=model_name(None, models))
    cpu_s = contender.process.cpu_s
    figures = load(place.folder, contender.target(protocol, ask, models), callers, seconds, next(place.seeds))
    return figures, (contender.process.cpu_s - cpu_s) * 1e6 / figures.all


def _idle(contender: Contender) -> float:
    cpu_s = contender.process.cpu_s
    time.sleep(_IDLE_S)
    return (contender.process.cpu_s - cpu_s) / _IDLE_S
