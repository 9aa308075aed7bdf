"""Puts everyone under every load in turn, round by round, so that the machine's noise hits them alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from benchmarks.rig import asking
from benchmarks.rig.programs import CannotRun, Figures, load
from benchmarks.router import contenders
from benchmarks.router.cases import Case
from benchmarks.router.contenders import Contender, Place

Cell: TypeAlias = tuple[Case, int, str]
"""A case, a number of callers, and the name of a contender."""

_FILL_PASSES: Final = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one cell; `cpu_us` is the processor time that the contender took for an answer (0: not known)."""

    figures: Figures
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Found:
    """All rounds of every cell, and why a cell or a contender has none, or fewer."""

    samples: dict[Cell, list[Sample]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: each of `cases` under its callers, by those of `names` that take part in it.

    Each load lasts `seconds`; caches hold the answers to `keys` questions. `callers` replace those of cases that have
    more than one number of them.
    """

    cases: Sequence[Case]
    names: Sequence[str]
    rounds: int
    seconds: float
    keys: int
    callers: Sequence[int] = ()

    def cells(self) -> list[Cell]:
        """Every cell of one round, all contenders of a load after each other."""
        return [
            (case, callers, name)
            for case in self.cases
            for callers in (len(case.callers) > 1 and self.callers) or case.callers
            for name in (*case.floors, *case.contenders)
            if name in self.names
        ]


def counted(callers: int) -> str:
    """So many callers, in words."""
    return "1 caller" if callers == 1 else f"{callers:,} callers"


def say(text: str) -> None:
    """Tells whoever waits how far things are."""
    print(text, file=sys.stderr, flush=True)


def measure(plan: Plan, place: Place, tell: Callable[[str], None] = say) -> Found:
    """Starts everyone, and goes through all rounds, forth and back by turns."""
    run = _Run(plan, place, tell)
    cells = plan.cells()
    with ExitStack() as stack:
        for name in dict.fromkeys(name for _, _, name in cells):
            run.start(stack, name)
        for number in range(plan.rounds):
            for cell in cells if number % 2 == 0 else cells[::-1]:
                if cell[2] in run.up and cell not in run.given_up:
                    run.sample(cell)
    return run.found


@dataclass(frozen=True, slots=True)
class _Run:
    """Who is up, what was found, and the cells that have failed once and are left alone since."""

    plan: Plan
    place: Place
    tell: Callable[[str], None]
    found: Found = field(default_factory=Found)
    up: dict[str, Contender] = field(default_factory=dict)
    given_up: set[Cell] = field(default_factory=set)

    def start(self, stack: ExitStack, name: str) -> None:
        self.tell(f"{time.strftime('%H:%M:%S')} starting {name}")
        with self._noted(name):
            self.up[name] = stack.enter_context(contenders.running(name, self.place))

    def sample(self, cell: Cell) -> None:
        """One round of a cell."""
        case, callers, name = cell
        shown = f"{case.title}, {counted(callers)}, {name}"
        with self._noted(shown, cell):
            if case.hits and name in case.contenders:
                self._fill(case, self.up[name])
            sample = self._loaded(case, callers, self.up[name])
            self.found.samples.setdefault(cell, []).append(sample)
            figures, what = sample.figures, "words " if case.by_words else ""
            rate = figures.words_per_s if case.by_words else figures.per_s
            self.tell(f"  {shown}: {rate:,.0f} {what}a second, {sample.cpu_us:,.0f} us of processor an answer")

    def _loaded(self, case: Case, callers: int, contender: Contender) -> Sample:
        target, process = contender.target(case.protocol, case.ask, self.plan.keys), contender.running
        posts, cpu_s = self.place.upstream.seen().posts, process.cpu_s if process else 0.0
        figures = load(self.place.folder, target, callers, self.plan.seconds, next(self.place.seeds))
        cpu_s = process.cpu_s - cpu_s if process else 0.0
        posts = self.place.upstream.seen().posts - posts
        if case.hits and posts:
            raise CannotRun(f"{posts} of {figures.all} answers were not from the cache")
        if not case.hits and posts < figures.all and "echo" not in contender.name:
            raise CannotRun(f"{figures.all - posts} of {figures.all} answers were not from the upstream")
        return Sample(figures, cpu_s * 1e6 / figures.all)

    def _fill(self, case: Case, contender: Contender) -> None:
        """Asks every question until none reaches the upstream: what others asked since may have pushed answers out."""
        target = contender.target("http", case.ask, self.plan.keys)
        for _ in range(_FILL_PASSES):
            before = self.place.upstream.seen().posts
            for number in range(self.plan.keys):
                asking.answer(target.port, target.ask, number, target.path)
            if self.place.upstream.seen().posts == before:
                return
        raise CannotRun(f"questions still reach the upstream after they were asked {_FILL_PASSES} times")

    @contextmanager
    def _noted(self, what: str, cell: Cell | None = None) -> Iterator[None]:
        try:
            yield
        except (CannotRun, OSError) as error:
            self.found.failures.append(f"{what}: {error}")
            self.tell(f"  {self.found.failures[-1]}")
            if cell is not None:
                self.given_up.add(cell)
