"""Which of several healthy replicas gets the next call."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from polyroute.core.call import Call

BalanceName: TypeAlias = Literal["least_outstanding", "round_robin"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that may be chosen; `weight`, above 0 and at most 1, is less while it recovers."""

    name: str
    outstanding: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The replica that was chosen, and why, in words; `reason` is empty where there was nothing to choose."""

    name: str
    reason: str


class Balance(Protocol):
    """A policy; it may remember what it has chosen."""

    def choose(self, candidates: Sequence[Candidate], call: Call) -> Choice:
        """One of the candidates, of which there is at least one."""
        ...

    def forget(self, name: str) -> None:
        """That replica has left."""


def balance_of(kind: BalanceName, chance: random.Random) -> Balance:
    """The policy of that name."""
    return _RoundRobin() if kind == "round_robin" else _LeastOutstanding(chance)


class _LeastOutstanding:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def choose(self, candidates: Sequence[Candidate], call: Call) -> Choice:
        chosen = min(candidates, key=lambda c: ((c.outstanding + 1) / c.weight, self._chance.random()))
        return Choice(chosen.name, "fewest calls in flight" if len(candidates) > 1 else "")

    def forget(self, name: str) -> None:
        """Nothing is kept."""


class _RoundRobin:
    def __init__(self) -> None:
        self._turn = 0

    def choose(self, candidates: Sequence[Candidate], call: Call) -> Choice:
        self._turn += 1
        return Choice(candidates[self._turn % len(candidates)].name, "next in turn" if len(candidates) > 1 else "")

    def forget(self, name: str) -> None:
        """Nothing is kept."""
