"""A simulated peer behind a limit: it answers so many calls at once, and keeps the rest waiting."""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol


class Limit(Protocol):
    """What is asked for the limit, and told of each first token; see `polyroute.routing.adaptive.AdaptiveLimit`."""

    def __call__(self) -> int: ...
    def answered(self, begun: float, now: float, in_flight: int) -> None: ...
    def overloaded(self, begun: float, now: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """`places` calls are answered at once. Times are in seconds.

    A call waits for a place, in order of arrival; then it takes `first_token_s` to begin, more by `crowding` the fuller
    the peer is (1: twice as long when it is full), and `answer_s` to end; both are means of log-normal times of spread
    `sigma`. Where `most_waiting` calls wait already, it refuses.
    """

    places: int = 64
    first_token_s: float = 0.3
    answer_s: float = 8.0
    crowding: float = 0.0
    sigma: float = 0.6
    most_waiting: int | None = None

    @property
    def rate(self) -> float:
        """Calls a second that it can answer."""
        return self.places / (self.first_token_s * (1 + self.crowding) + self.answer_s)


@dataclass(slots=True)
class Course:
    """What happened: the limit over time, first-token times, and how many calls were answered and refused."""

    limits: list[int] = field(default_factory=list)
    """One every 10 s."""
    first_token_s: list[tuple[float, float]] = field(default_factory=list)
    """When a call got its permit, and how long its first token took."""
    answered: int = 0
    refused: int = 0

    def settled(self) -> list[int]:
        """The limits of the second half."""
        return self.limits[len(self.limits) // 2 :]

    def quantile_s(self, share: float) -> float:
        """Of the first-token times of the second half, that which `share` of them do not exceed."""
        late = self.first_token_s[-1][0] / 2
        times = sorted(time for begun, time in self.first_token_s if begun > late)
        return times[int(share * (len(times) - 1))]

    @property
    def limit(self) -> float:
        """The mean limit of the second half."""
        return statistics.fmean(self.settled())


class Simulation:
    """Calls on their way through a limit to a peer, by their events in order of time; the same for the same `seed`.

    `load` is the share of the peer's rate at which calls arrive (as a Poisson process); None always has one waiting.
    """

    def __init__(self, limit: Limit, peer: Peer, *, load: float | None = None, seed: int = 1) -> None:
        self._limit = limit
        self._peer = peer
        self._load = load
        self._chance = random.Random(seed)
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._backlog = 0
        self._in_flight = 0
        self._waiting: deque[float] = deque()
        self._running = 0
        self.course = Course()
        if load is not None:
            self._at(0.0, self._arrive)
        self._at(0.0, self._tick)

    def change(self, at_s: float, **fields: float) -> None:
        """At that time the peer becomes another in these fields."""

        def become() -> None:
            self._peer = replace(self._peer, **fields)

        self._at(at_s, become)

    def run(self, seconds: float) -> Course:
        """The course of so many seconds."""
        while self._events and self._events[0][0] <= seconds:
            self._now, _, event = heapq.heappop(self._events)
            event()
            self._admit()
        return self.course

    def _at(self, time_s: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time_s, self._count, event))

    def _tick(self) -> None:
        self.course.limits.append(self._limit())
        self._at(self._now + 10, self._tick)

    def _arrive(self) -> None:
        self._backlog += 1
        self._at(self._now + self._chance.expovariate((self._load or 0.0) * self._peer.rate), self._arrive)

    def _admit(self) -> None:
        while (self._load is None or self._backlog) and self._in_flight < self._limit():
            self._backlog -= 1
            if self._refuses():
                self._refused()
                return
            self._in_flight += 1
            self._waiting.append(self._now)
            self._start()

    def _refuses(self) -> bool:
        full, most = self._running >= self._peer.places, self._peer.most_waiting
        return full and most is not None and len(self._waiting) >= most

    def _refused(self) -> None:
        self.course.refused += 1
        self._limit.overloaded(self._now, self._now)
        if self._load is None:
            self._at(self._now + 0.1, lambda: None)  # the next of those who always wait comes a little later

    def _start(self) -> None:
        while self._waiting and self._running < self._peer.places:
            begun = self._waiting.popleft()
            self._running += 1
            crowd = 1 + self._peer.crowding * self._running / self._peer.places
            first = self._now + self._drawn(self._peer.first_token_s * crowd)
            self._at(first, lambda begun=begun: self._first(begun))  # type: ignore[misc]
            self._at(first + self._drawn(self._peer.answer_s), self._end)

    def _first(self, begun: float) -> None:
        self.course.first_token_s.append((begun, self._now - begun))
        self._limit.answered(begun, self._now, self._in_flight)

    def _end(self) -> None:
        self._running -= 1
        self._in_flight -= 1
        self.course.answered += 1
        self._start()

    def _drawn(self, mean_s: float) -> float:
        sigma = self._peer.sigma
        return mean_s * math.exp(self._chance.gauss(-sigma * sigma / 2, sigma))
