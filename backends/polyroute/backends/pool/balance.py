"""Which replica gets a call: pure choices among the healthy ones, by what is in flight there.

Nothing here knows a clock, a socket or asyncio: the pool says who is healthy and how busy, and chance is injected.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from polyroute.backends.pool.prefixes import BLOCK_CHARS, Prefixes, path_of
from polyroute.backends.pool.rendezvous import highest
from polyroute.core.call import Call

BalanceName: TypeAlias = Literal["least_outstanding", "round_robin", "prefix"]


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A replica that may get the call: its name, the calls in flight there, and its weight in (0, 1].

    A weight below 1 is that of a replica which recovers: it gets so much of a full share.
    """

    name: str
    outstanding: int
    weight: float = 1.0


class Choice(msgspec.Struct, frozen=True, gc=False):
    """The replica that gets the call, and why in words; no words where there was nothing to choose from."""

    name: str
    reason: str = ""


class Balance(Protocol):
    """Chooses replicas, one call after the other. What it remembers of them is bounded."""

    def choose(self, candidates: Sequence[Candidate], call: Call, *, goes: bool = True) -> Choice:
        """The replica for `call`; `candidates` holds at least one, and none that is unhealthy.

        Where the call only asks, and never `goes` there, nothing is remembered of it.
        """
        ...

    def forget(self, name: str) -> None:
        """The replica has left, or has lost what it held: nothing that was known of it counts any more."""
        ...


def balance_of(kind: BalanceName, chance: random.Random) -> Balance:
    """The balance of that name. Each kind keeps calls with an `affinity_key` together."""
    others: Balance
    if kind == "prefix":
        others = Prefix(chance)
    else:
        others = RoundRobin(chance) if kind == "round_robin" else LeastOutstanding(chance)
    return Sticky(others)


class LeastOutstanding:
    """The less busy of two replicas that are drawn by chance: the power of two choices.

    M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001: nearly as even as
    asking all, and routers which see the same counts do not all fall on the same replica. The first replica is drawn by
    weight, and takes ties: while nothing is in flight, each one's share is its weight's.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def choose(self, candidates: Sequence[Candidate], call: Call, *, goes: bool = True) -> Choice:
        if len(candidates) == 1:
            return Choice(candidates[0].name)
        first = self._draw(candidates)
        second = self._draw([candidate for candidate in candidates if candidate is not first])
        less, more = (second, first) if busyness(second) < busyness(first) else (first, second)
        return Choice(less.name, f"`{less.name}` has {less.outstanding} in flight, `{more.name}` {more.outstanding}")

    def forget(self, name: str) -> None:
        """Nothing is remembered."""

    def _draw(self, candidates: Sequence[Candidate]) -> Candidate:
        left = self._chance.random() * sum(candidate.weight for candidate in candidates)
        for candidate in candidates:
            left -= candidate.weight
            if left < 0:
                return candidate
        return candidates[-1]  # the sum may be a hair more than its parts


class RoundRobin:
    """Each replica in turn, as often as its weight says and as evenly as that can be: nginx's smooth round robin.

    Every turn adds each candidate's weight to its credit; the one with the most credit goes, and pays for all.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._credit: dict[str, float] = {}

    def choose(self, candidates: Sequence[Candidate], call: Call, *, goes: bool = True) -> Choice:
        if len(candidates) == 1:
            return Choice(candidates[0].name)
        credit = self._credit if goes else dict(self._credit)
        for candidate in candidates:
            # A turn begins anywhere, lest routers that start together all begin with the same replica.
            before = credit.get(candidate.name)
            credit[candidate.name] = candidate.weight + (self._chance.random() if before is None else before)
        chosen = max(candidates, key=lambda candidate: credit[candidate.name]).name
        credit[chosen] -= sum(candidate.weight for candidate in candidates)
        return Choice(chosen, f"it is the turn of `{chosen}`")

    def forget(self, name: str) -> None:
        self._credit.pop(name, None)


class Prefix:
    """The replica that was given the longest part of the prompt's beginning, while it has room.

    Its engine then has keys and values for that part, and computes the rest alone. A replica without room is passed
    over for one that was given less, or nothing, of the prompt; and so a beginning that many share comes to be where
    its calls need it. Between equals the less busy one decides, as in `LeastOutstanding`.
    """

    def __init__(self, chance: random.Random) -> None:
        self._less_busy = LeastOutstanding(chance)
        self._prefixes = Prefixes()

    def choose(self, candidates: Sequence[Candidate], call: Call, *, goes: bool = True) -> Choice:
        path = path_of(call.request)
        if not path:
            return self._less_busy.choose(candidates, call)
        choice = self._among(candidates, call, path)
        if goes:
            self._prefixes.give(path, choice.name)
        return choice

    def forget(self, name: str) -> None:
        self._prefixes.forget(name)

    def _among(self, candidates: Sequence[Candidate], call: Call, path: Sequence[int]) -> Choice:
        if len(candidates) == 1:
            return Choice(candidates[0].name)
        roomy = with_room(candidates)
        if len(roomy) == 1:
            return Choice(roomy[0].name, f"only `{roomy[0].name}` has room")
        for depth, names in self._prefixes.holders(path):
            fit = [candidate for candidate in roomy if candidate.name in names]
            if fit:
                name = self._less_busy.choose(fit, call).name
                return Choice(name, f"`{name}` has had the first {depth * BLOCK_CHARS} characters of this prompt")
        return self._less_busy.choose(roomy, call)


class Sticky:
    """Keeps the calls of one `affinity_key` on one replica while it has room; other calls are `others`' to choose.

    The replica is the key's first by rendezvous hashing, so every router names the same, and only the keys of a replica
    that comes or goes move. Where that one is full, the key's next takes the call: consistent hashing with bounded
    loads (V. Mirrokni, M. Thorup, M. Zadimoghaddam, SODA 2018).
    """

    def __init__(self, others: Balance) -> None:
        self._others = others

    def choose(self, candidates: Sequence[Candidate], call: Call, *, goes: bool = True) -> Choice:
        key = call.request.routing.affinity_key
        if not key:
            return self._others.choose(candidates, call, goes=goes)
        if len(candidates) == 1:
            return Choice(candidates[0].name)
        home = highest(key, [candidate.name for candidate in candidates])
        roomy = [candidate.name for candidate in with_room(candidates)]
        if home in roomy:
            return Choice(home, f"affinity_key keeps the call on `{home}`")
        chosen = highest(key, roomy)
        return Choice(chosen, f"`{home}`, which affinity_key points to, is full: `{chosen}` is next")

    def forget(self, name: str) -> None:
        self._others.forget(name)


BOUND: Final = 1.5
"""Most that a replica may have in flight for the sake of a key or a prefix, as a multiple of the fair share."""

SLACK: Final = 4
"""So many calls in flight are no load yet, whatever the fair share: an engine answers them together."""


def busyness(candidate: Candidate) -> float:
    """Calls in flight, as they weigh on a replica that may carry only part of a full load."""
    return candidate.outstanding / candidate.weight


def with_room(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The replicas that are not full yet: at least one, since together they have room for `BOUND` times all calls."""
    calls = 1 + sum(candidate.outstanding for candidate in candidates)
    fair = calls / sum(candidate.weight for candidate in candidates)
    limit = max(SLACK, BOUND * fair)
    return [candidate for candidate in candidates if candidate.outstanding < limit * candidate.weight]
