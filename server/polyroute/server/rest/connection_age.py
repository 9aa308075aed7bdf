"""How old HTTP connections may get: with several router processes on one port, a new one may go to another process."""

from __future__ import annotations

import random
import time
from asyncio import BaseTransport
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

JITTER: Final = 0.1
"""The age is longer or shorter by up to this share, as gRPC has it, so that not all connections end at once."""


class ConnectionAge:
    """Says of which connections the next answer is to be the last one: those older than `most_s` seconds.

    A connection's age counts from its first request. An answer that is being given is never cut for it. None ends
    nothing.
    """

    def __init__(
        self,
        most_s: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random = random.Random(),  # noqa: B008, S311 - it only spreads ends in time
    ) -> None:
        self._most_s = most_s
        self._clock = clock
        self._chance = chance
        self._ends: WeakKeyDictionary[BaseTransport, float] = WeakKeyDictionary()

    def over(self, connection: BaseTransport | None) -> bool:
        """Whether the connection has lived long enough; to be asked with each of its requests."""
        if self._most_s is None or connection is None:
            return False
        end, now = self._ends.get(connection), self._clock()
        if end is None:
            end = self._ends[connection] = now + self._most_s * self._chance.uniform(1 - JITTER, 1 + JITTER)
        return now >= end
