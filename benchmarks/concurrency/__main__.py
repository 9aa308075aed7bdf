"""Prints how each limit fares with each peer: `python -m benchmarks.concurrency`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from benchmarks.concurrency.others import Aimd, Gradient2, Vegas
from benchmarks.concurrency.peer import Limit, Peer, Simulation
from polyroute.routing.adaptive import AdaptiveLimit

LIMITS: Mapping[str, Callable[[int, int], Limit]] = MappingProxyType(
    {"adaptive": AdaptiveLimit, "gradient2": Gradient2, "vegas": Vegas, "aimd": Aimd}
)


@dataclass(frozen=True, slots=True)
class Case:
    """A peer, how busy it is, and what becomes of it after a third of the time."""

    peer: Peer
    load: float | None = None
    then: Mapping[str, float] = field(default_factory=dict)


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "64 places": Case(Peer()),
        "1 place": Case(Peer(places=1)),
        "4 places": Case(Peer(places=4)),
        "300 places": Case(Peer(places=300)),
        "short answers": Case(Peer(places=32, answer_s=0.6)),
        "slower when full": Case(Peer(crowding=1.5)),
        "noisy": Case(Peer(sigma=1.2)),
        "refuses": Case(Peer(most_waiting=0)),
        "half used": Case(Peer(), load=0.5),
        "95% used": Case(Peer(), load=0.95),
        "64, then 16 places": Case(Peer(), then={"places": 16}),
        "16, then 64 places": Case(Peer(places=16), then={"places": 64}),
        "prompts 3 times as long": Case(Peer(), then={"first_token_s": 0.9}),
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table; always returns 0."""
    parser = argparse.ArgumentParser(prog="benchmarks.concurrency", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0, help="simulated time of each run")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    print("| peer | limit | mean (least-most) | answered a second | first token p50 | p99 | refused |")
    print("|---|---|---|---|---|---|---|")
    for title, case in CASES.items():
        for name, limit in LIMITS.items():
            print(f"| {title} | {name} | {_row(limit(1, 512), case, options.hours * 3600, options.seed)} |")
    return 0


def _row(limit: Limit, case: Case, seconds: float, seed: int) -> str:
    simulation = Simulation(limit, case.peer, load=case.load, seed=seed)
    if case.then:
        simulation.change(seconds / 3, **case.then)
    course = simulation.run(seconds)
    settled = course.settled()
    return (
        f"{course.limit:.0f} ({min(settled)}-{max(settled)}) | {course.answered / seconds:.2f} | "
        f"{course.quantile_s(0.5):.2f} s | {course.quantile_s(0.99):.1f} s | {course.refused}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
