"""What many models cost the router: its start, its memory, its idling, and calls that go to any of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.rig.floors import WORDS
from benchmarks.rig.programs import CannotRun, Figures, load
from benchmarks.rig.workload import UNIQUE, Ask
from benchmarks.router.contenders import Contender, Ours, Place, model_name, ours

TITLE: Final = "many models"
SIZES: Final = (1, 10, 1_000, 10_000)
_CALLERS: Final = 32
_IDLE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Size:
    """Of the router over so many models, each called at random; `rounds` by protocol, with the processor's time.

    `idle_share` is the share of a core that it takes while nobody calls.
    """

    models: int
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


def measure(
    protocols: Sequence[str],
    rounds: int,
    seconds: float,
    place: Place,
    tell: Callable[[str], None],
    sizes: Sequence[int] = SIZES,
) -> list[Size]:
    """All sizes side by side, in turns; raises `CannotRun`."""
    with ExitStack() as stack:
        up: list[tuple[Size, Contender]] = []
        for models in sizes:
            tell(f"{time.strftime('%H:%M:%S')} {TITLE}: starting with {models:,}")
            begun = time.monotonic()
            contender = stack.enter_context(ours(Ours(models=models), place, f"polyroute-{models}"))
            assert contender.running is not None
            start_s, start_mb = time.monotonic() - begun, contender.running.rss_mb
            up.append((Size(models, start_s, start_mb, _idle(contender), {p: [] for p in protocols}), contender))
        for number in range(rounds):
            for size, contender in up if number % 2 == 0 else up[::-1]:
                for protocol in protocols:
                    size.rounds[protocol].append(_round(contender, size.models, protocol, seconds, place))
                    tell(f"  {size.models:,} models, {protocol}: {size.rounds[protocol][-1][1]:,.0f} us of processor")
        return [size for size, _ in up]


def _round(contender: Contender, models: int, protocol: str, seconds: float, place: Place) -> tuple[Figures, float]:
    assert contender.running is not None
    ask = Ask(WORDS, slot=UNIQUE, model=model_name(None, models))
    cpu_s = contender.running.cpu_s
    figures = load(place.folder, contender.target(protocol, ask, models), _CALLERS, seconds, next(place.seeds))
    if figures.per_s == 0:
        raise CannotRun(f"{TITLE}: {models:,} answered nothing in time")
    return figures, (contender.running.cpu_s - cpu_s) * 1e6 / figures.all


def _idle(contender: Contender) -> float:
    assert contender.running is not None
    cpu_s = contender.running.cpu_s
    time.sleep(_IDLE_S)
    return (contender.running.cpu_s - cpu_s) / _IDLE_S
