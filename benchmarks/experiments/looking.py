"""Two variants compared over and over while calls come in: how often there is an alarm, and when."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from types import MappingProxyType
from typing import Final, TypeAlias

from polyroute.routing.experiments.mean import Sample, difference
from polyroute.routing.experiments.pairs import Pairs, log_e_worse

ALPHA: Final = 0.05

_TWO_SIDED: Final = 1.959964  # of the normal distribution, for 5%
_FIRST: Final = 30
"""Calls of each variant before the z-test looks for the first time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Failures of each variant among `calls` of each, and their pairs in order."""

    calls: int
    treatment: int
    control: int
    pairs: Pairs


Test: TypeAlias = Callable[[Seen], bool]
"""Whether it says that the variants differ."""


def z_test(seen: Seen) -> bool:
    """The usual test of two proportions, as if it were looked at once."""
    both = (seen.treatment + seen.control) / (2 * seen.calls)
    if seen.calls < _FIRST or both in (0, 1):
        return False
    error = math.sqrt(2 * both * (1 - both) / seen.calls)
    return abs(seen.treatment - seen.control) / seen.calls / error > _TWO_SIDED


def sequence(seen: Seen) -> bool:
    """The confidence sequence of reports."""
    treatment = Sample.of_successes(seen.treatment, seen.calls)
    return 0 not in difference(treatment, Sample.of_successes(seen.control, seen.calls), ALPHA)


def bets(seen: Seen) -> bool:
    """The bets of rollouts, in both directions."""
    return _bet(seen.pairs.worse, seen.pairs.better)  # what is even wins and loses nothing


@lru_cache
def _bet(worse: int, better: int) -> bool:
    pairs, limit = Pairs(worse, 0, better), math.log(2 / ALPHA)
    return log_e_worse(pairs) >= limit or log_e_worse(pairs.swapped) >= limit


TESTS: Mapping[str, Test] = MappingProxyType(
    {"z-test, repeated": z_test, "confidence sequence": sequence, "bets on pairs": bets}
)


def alarms(treatment: float, control: float, calls: int, runs: int, seed: int) -> dict[str, list[int]]:
    """By test, after how many calls of each variant it raised the alarm, in the runs in which it did.

    Every test looks at the same calls, after each of them; the arguments are failure rates.
    """
    found: dict[str, list[int]] = {name: [] for name in TESTS}
    for run in range(runs):
        rng = random.Random(f"{seed} {treatment} {control} {run}")
        for name, at in _first_alarms(treatment, control, calls, rng).items():
            found[name].append(at)
    return found


def _first_alarms(treatment: float, control: float, calls: int, rng: random.Random) -> dict[str, int]:
    silent, at = dict(TESTS), {}
    bad, worse, pairs = 0, 0, Pairs()
    for call in range(1, calls + 1):
        new, old = rng.random() < treatment, rng.random() < control
        worse, bad, pairs = worse + new, bad + old, pairs.with_pair(new, old)
        seen = Seen(call, worse, bad, pairs)
        for name in [name for name, test in silent.items() if test(seen)]:
            at[name] = call
            del silent[name]
        if not silent:
            break
    return at


def row(name: str, at: list[int], runs: int) -> str:
    """One row of a Markdown table."""
    ordered = sorted(at)
    when = f"{median(ordered):.0f} | {ordered[int(0.9 * len(ordered))]}" if ordered else "- | -"
    return f"| {name} | {len(at) / runs:.1%} | {when} |"
