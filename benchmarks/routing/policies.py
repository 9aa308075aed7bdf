"""The policies that are compared: the router's own, and the one that was refused in favour of `prefix`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from polyroute.backends.pool.balance import Balance, Candidate, Choice, balance_of
from polyroute.core.call import Call


@dataclass(frozen=True, slots=True)
class Policy:
    """What is compared: how replicas are chosen, and whether each chat sends an affinity key."""

    make: Callable[[random.Random], Balance]
    affinity: bool = False


class HashedPrefix:
    """Consistent hashing with bounded loads over the first `chars` characters of the chat, where it has so many."""

    def __init__(self, chance: random.Random, chars: int = 256) -> None:
        self._chars = chars
        self._balance = balance_of("least_outstanding", chance)

    def choose(self, candidates: Sequence[Candidate], call: Call, *, goes: bool = True) -> Choice:
        """As for a call whose affinity key is the beginning of its chat."""
        messages = call.request.messages or ()
        key = "\n".join(message.content[: self._chars] for message in messages[:1])[: self._chars]
        if len(key) == self._chars:
            routing = replace(call.request.routing, affinity_key=key)
            call = replace(call, request=replace(call.request, routing=routing))
        return self._balance.choose(candidates, call, goes=goes)

    def forget(self, name: str) -> None:
        """Nothing is remembered."""


POLICIES: Final = {
    "round_robin": Policy(lambda chance: balance_of("round_robin", chance)),
    "least_outstanding": Policy(lambda chance: balance_of("least_outstanding", chance)),
    "prefix": Policy(lambda chance: balance_of("prefix", chance)),
    "affinity_key": Policy(lambda chance: balance_of("least_outstanding", chance), affinity=True),
    "hashed prefix": Policy(HashedPrefix),
}
"""By name. `affinity_key` is `least_outstanding` with a key for each chat; `hashed prefix` is no option of a model."""
