"""The router beside itself: over more models, and with more processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Final, TypeAlias

from benchmarks.rig.floors import WORDS
from benchmarks.rig.processes import Running
from benchmarks.rig.programs import Figures, Target, load
from benchmarks.rig.starting import floor
from benchmarks.rig.workload import UNIQUE, Ask
from benchmarks.router.contenders import Contender, Ours, Place, model_name, ours

SIZES: Final = (1, 10, 1_000, 10_000)
WORKERS: Final = (1, 2)
_IDLE_S: Final = 2.0
_SETTLED_S: Final = 2.0
"""After the first answer, which another process of several may give while the rest of them still start."""
_FLOORS: Final = {"grpc": "grpc pass-through", "http": "http proxy"}

Rounds: TypeAlias = dict[str, list[tuple[Figures, float]]]
"""By protocol, of each round a load's figures and the processor's time for an answer, in microseconds."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ways to run the router that are compared, by what each is called; `callers` ask each of them for misses.

    `floors` says in how many processes a bare floor is run beside each, by the same names.
    """

    title: str
    ways: dict[str, Ours]
    callers: int
    floors: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variant:
    """The router run one way, and (`bare`) its floor run that way, where there is one.

    `idle_share` is the share of a core that it takes while nobody calls.
    """

    name: str
    start_s: float
    start_mb: float
    idle_share: float
    rounds: Rounds
    bare: Rounds = field(default_factory=dict)

    def per_s(self, protocol: str) -> float:
        """Answers a second, the median of the rounds."""
        return median(figures.per_s for figures, _ in self.rounds[protocol])

    def cpu_us(self, protocol: str) -> float:
        """Microseconds of processor an answer, the median of the rounds."""
        return median(cpu_us for _, cpu_us in self.rounds[protocol])

    def bare_cpu_us(self, protocol: str) -> float:
        """The same of the floor."""
        return median(cpu_us for _, cpu_us in self.bare[protocol])

    def times(self, first: Variant, protocol: str) -> float:
        """How many times the answers of `first` it gives, the median of each round's ratio."""
        return _times(self.rounds[protocol], first.rounds[protocol])

    def bare_times(self, first: Variant, protocol: str) -> float | None:
        """The same of the floor; None where there is none."""
        return _times(self.bare[protocol], first.bare[protocol]) if protocol in self.bare else None


def _times(mine: list[tuple[Figures, float]], first: list[tuple[Figures, float]]) -> float:
    return median(one.per_s / other.per_s for (one, _), (other, _) in zip(mine, first, strict=True))


def many_models(sizes: Sequence[int], callers: int = 32) -> Comparison:
    """Registries of so many models, each call to another one."""
    return Comparison("many models", {f"{size:,}": Ours(models=size) for size in sizes}, callers)


def many_workers(counts: Sequence[int], callers: int = 64) -> Comparison:
    """So many processes on as many cores, the first of which is core 0."""
    ways = {
        f"{count:,}": Ours(cores=f"0-{count - 1}", flags=("--workers", str(count)) if count > 1 else ())
        for count in counts
    }
    return Comparison("several workers", ways, callers, {f"{count:,}": count for count in counts})


@dataclass(frozen=True, slots=True)
class _Up:
    """What is asked: where, and the processes that answer there; `rounds` is where its figures go."""

    name: str
    target: Target
    running: Sequence[Running]
    rounds: list[tuple[Figures, float]]


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
        variants: list[Variant] = []
        up: list[list[_Up]] = []
        for name, how in comparison.ways.items():
            tell(f"{time.strftime('%H:%M:%S')} {comparison.title}: starting {name}")
            begun = time.monotonic()
            contender = stack.enter_context(ours(how, place, f"polyroute {comparison.title} {name}"))
            start_s, start_mb = time.monotonic() - begun, contender.process.rss_mb
            variant = Variant(name, start_s, start_mb, _idle(contender), {p: [] for p in protocols})
            variants.append(variant)
            up.append([*_ours_up(variant, contender, how.models), *_bare_up(stack, comparison, variant, how, place)])
        for number in range(rounds):
            for way in up if number % 2 == 0 else up[::-1]:
                for one in way:
                    figures, cpu_us = _round(one, comparison.callers, seconds, place)
                    one.rounds.append((figures, cpu_us))
                    what = f"  {comparison.title}, {one.name}, {one.target.protocol}"
                    tell(f"{what}: {figures.per_s:,.0f} a second, {cpu_us:,.0f} us of processor an answer")
        return variants


def _ours_up(variant: Variant, contender: Contender, models: int) -> Iterator[_Up]:
    ask = Ask(WORDS, slot=UNIQUE, model=model_name(None, models))
    for protocol, rounds in variant.rounds.items():
        yield _Up(variant.name, contender.target(protocol, ask, models), [contender.process], rounds)


def _bare_up(stack: ExitStack, comparison: Comparison, variant: Variant, how: Ours, place: Place) -> Iterator[_Up]:
    """The floors of a way: as many processes on one port, to which the system gives connections as it does to ours."""
    ask = Ask(WORDS, slot=UNIQUE)
    for protocol in variant.rounds if variant.name in comparison.floors else ():
        port, running = 0, []
        for _ in range(comparison.floors[variant.name]):
            served = floor(_FLOORS[protocol], place.upstream.port, port=port, cores=how.cores)
            ports, process = stack.enter_context(served)
            port = ports[protocol]
            running.append(process)
        contender = Contender(_FLOORS[protocol], {protocol: port})
        rounds = variant.bare[protocol] = []
        yield _Up(f"{variant.name} of {contender.name}", contender.target(protocol, ask, 1), running, rounds)


def _round(up: _Up, callers: int, seconds: float, place: Place) -> tuple[Figures, float]:
    cpu_s = sum(process.cpu_s for process in up.running)
    figures = load(place.folder, up.target, callers, seconds, next(place.seeds))
    return figures, (sum(process.cpu_s for process in up.running) - cpu_s) * 1e6 / figures.all


def _idle(contender: Contender) -> float:
    time.sleep(_SETTLED_S)
    cpu_s = contender.process.cpu_s
    time.sleep(_IDLE_S)
    return (contender.process.cpu_s - cpu_s) / _IDLE_S
