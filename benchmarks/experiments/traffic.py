"""Calls to two versions of a model, as they might come."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Version:
    """How a version answers: `failing` is the share of its calls that fail; it is `slower` times as slow as usual.

    Times are lognormal: to the first token 0.4 s in the median, and 2 s more to the last.
    """

    failing: float = 0.01
    slower: float = 1.0

    def first_token_s(self, rng: random.Random) -> float:
        """A time to the first token, in seconds."""
        return self.slower * rng.lognormvariate(-0.916, 0.6)

    def rest_s(self, rng: random.Random) -> float:
        """A time from the first token to the last, in seconds."""
        return self.slower * rng.lognormvariate(0.693, 0.7)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call, which ended at `at` seconds."""

    at: float
    failed: bool
    first_token_s: float
    total_s: float


def outcome(version: Version, at: float, rng: random.Random) -> Outcome:
    """One call to a version."""
    first_token_s = version.first_token_s(rng)
    return Outcome(at, rng.random() < version.failing, first_token_s, first_token_s + version.rest_s(rng))


def arrivals(per_minute: float, rng: random.Random) -> Iterator[float]:
    """Times in seconds at which calls come: a Poisson process."""
    now = 0.0
    while True:
        now += rng.expovariate(per_minute / 60)
        yield now
