"""The clock: sends each arrival where the router's own pool would, and keeps count of what callers see."""

from __future__ import annotations

import heapq
import itertools
import random
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

from benchmarks.routing.engine import Engine, Shape, Work
from benchmarks.routing.trace import Arrival
from polyroute.backends.pool.balance import Balance
from polyroute.backends.pool.budget import RetryBudget
from polyroute.backends.pool.replica import Replica
from polyroute.backends.pool.selection import best, on_trial
from polyroute.core.backend import Backend, BackendStatus, Facts, ModelState, ReplicaStatus
from polyroute.core.config import RemoteConfig
from polyroute.core.errors import PeerUnreachable

REFUSAL_S: Final = 0.01
"""How soon a dead replica refuses a connection."""

PROBE_S: Final = 5.0
"""How often a replica that was lost is probed."""

_LOST: Final = PeerUnreachable("connection refused")
_Event: TypeAlias = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The replicas: the first is `slowness` times slower than the others; the last one is dead for `dead_s` of every
    `period_s` seconds, and each time loses its work and its cache.
    """

    replicas: int = 8
    slowness: float = 2.5
    period_s: float = 600.0
    dead_s: float = 60.0
    shape: Shape = Shape()  # noqa: RUF009 - frozen


@dataclass(slots=True)
class Tally:
    """What callers saw, by requests that arrived over `lasted` seconds.

    `first_token_s` counts from a request's arrival; `imbalance` is a sample a second.
    """

    arrived: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    hit_tokens: int = 0
    lasted: float = 0.0
    first_token_s: array[float] = field(default_factory=lambda: array("d"))
    imbalance: array[float] = field(default_factory=lambda: array("d"))


class Simulation:
    """One run of one policy over one trace.

    What is real: the balance, and the pool's replicas, breakers, slow start, choice of candidates and retry budget,
    with their defaults. What is not: the engines, the wire, and the loop around retries, which is the pool's in short.
    """

    def __init__(self, balance: Balance, fleet: Fleet, chance: random.Random) -> None:
        self._now = 0.0
        self._balance = balance
        self._fleet = fleet
        self._config = RemoteConfig(id="m", type="remote", base_urls=("http://m",))
        self._budget = RetryBudget(self._config.retry_budget, self._clock)
        self._hosts = [
            _Host(f"r{i}", Engine(fleet.shape, fleet.slowness if i == 0 else 1.0)) for i in range(fleet.replicas)
        ]
        self._replicas = [
            Replica(cast("Backend", host), self._config, newcomer=False, clock=self._clock, chance=chance)
            for host in self._hosts
        ]
        self._by_name = {host.name: (host, replica) for host, replica in zip(self._hosts, self._replicas, strict=True)}
        self._dying = self._hosts[-1]
        self._events: list[tuple[float, int, _Event]] = []
        self._order = itertools.count()
        self._open = 0
        self._tally = Tally()

    def run(self, trace: Iterable[Arrival]) -> Tally:
        """Everything that came of the arrivals, once the last one is answered or lost."""
        self._at(self._fleet.period_s - self._fleet.dead_s, self._die)
        self._at(PROBE_S, self._probe)
        self._at(1.0, self._look)
        for arrival in trace:
            self._until(arrival.at)
            self._tally.lasted = arrival.at
            self._tally.arrived += 1
            self._open += 1
            self._budget.called()
            self._send(Work(arrival))
        while self._open:
            self._until(self._events[0][0])
        return self._tally

    def _clock(self) -> float:
        return self._now

    def _at(self, when: float, event: _Event) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _until(self, now: float) -> None:
        events = self._events
        while events and events[0][0] <= now:
            self._now, _, event = heapq.heappop(events)
            event(self._now)
        self._now = now

    def _send(self, work: Work) -> None:
        replica = None if work.tried else on_trial(self._replicas)
        if replica is None:
            group = best(self._replicas, work.tried)
            if not group:
                self._end(failed=True)
                return
            name = self._balance.choose([one.candidate for one in group], work.arrival.call).name
            host, replica = self._by_name[name]
        else:
            host = self._by_name[replica.name][0]
        work.tried += (replica.name,)
        work.admission = replica.admit()
        if not host.alive:
            self._at(self._now + REFUSAL_S, lambda _: self._lost(work, replica))
            return
        due = host.engine.due
        host.engine.add(work, self._now)
        if host.engine.due != due:
            self._expect(host)

    def _expect(self, host: _Host) -> None:
        if (due := host.engine.due) is not None:
            # One that is no longer due was put off or brought forward meanwhile.
            self._at(due, lambda now: self._advance(host) if host.engine.due == now else None)

    def _advance(self, host: _Host) -> None:
        replica, tally = self._by_name[host.name][1], self._tally
        progress = host.engine.advance()
        for work in progress.began:
            replica.answering(work.admission)
            tally.first_token_s.append(self._now - work.arrival.at)
            tally.prompt_tokens += work.arrival.prompt_tokens
            tally.hit_tokens += work.hit_tokens
        for work in progress.done:
            replica.breaker.succeeded(work.admission)
            replica.release()
            self._end()
        self._expect(host)

    def _lost(self, work: Work, replica: Replica) -> None:
        replica.failed(work.admission, _LOST, excused=False)
        replica.release()
        self._by_name[replica.name][0].state = ModelState.FAILED
        if work.began is None and len(work.tried) <= self._config.retries and self._budget.take():
            self._send(work)
        else:
            self._end(failed=True)

    def _end(self, *, failed: bool = False) -> None:
        self._open -= 1
        self._tally.failed += failed

    def _die(self, now: float) -> None:
        lost = self._dying.engine.works
        self._dying.alive = False
        self._dying.engine = Engine(self._fleet.shape)
        for work in lost:
            self._lost(work, self._replicas[-1])
        self._at(now + self._fleet.dead_s, self._rise)

    def _rise(self, now: float) -> None:
        self._dying.alive = True
        self._at(now + self._fleet.period_s - self._fleet.dead_s, self._die)

    def _probe(self, now: float) -> None:
        for host in self._hosts:
            if host.alive:
                host.state = ModelState.WARM
        self._at(now + PROBE_S, self._probe)

    def _look(self, now: float) -> None:
        """The fullest replica over the mean of those that live."""
        counts = [replica.in_flight for host, replica in zip(self._hosts, self._replicas, strict=True) if host.alive]
        if any(counts):
            self._tally.imbalance.append(max(counts) * len(counts) / sum(counts))
        self._at(now + 1.0, self._look)


@dataclass(eq=False, slots=True)
class _Host:
    """A replica's own side: its engine, whether it lives, and what the router knows of that so far."""

    name: str
    engine: Engine
    alive: bool = True
    state: ModelState = ModelState.WARM
    _facts: dict[ModelState, Facts] = field(init=False)
    _statuses: dict[ModelState, BackendStatus] = field(init=False)

    def __post_init__(self) -> None:
        both = (ModelState.WARM, ModelState.FAILED)
        self._facts = {state: Facts(state) for state in both}
        self._statuses = {state: BackendStatus(state, replicas=(ReplicaStatus(self.name, state),)) for state in both}

    def facts(self) -> Facts:
        """As a backend would say it."""
        return self._facts[self.state]

    def status(self) -> BackendStatus:
        """As a backend would say it."""
        return self._statuses[self.state]
