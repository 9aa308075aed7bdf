"""One replica of a pool: how it is, what it may be given, and what came of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from polyroute.backends.pool.balance import Candidate
from polyroute.backends.pool.blame import is_replicas_fault, pause_s
from polyroute.backends.pool.breaker import Admission, Breaker, BreakerState
from polyroute.backends.pool.tally import Tally
from polyroute.core.backend import Backend, BackendStatus, Facts, ModelState
from polyroute.core.config import DeploymentConfig, ModelConfig
from polyroute.core.errors import PolyrouteError, clip

LEAST_WEIGHT: Final = 0.1
"""Weight at the beginning of a slow start."""

BLINK_S: Final = 1.0
"""A replica that was lost for no longer than this, in seconds, comes back as if it had not been."""

_QUOTED_CHARS = 200


class Replica:
    """A backend of one replica, with its breaker, its pause and its slow start.

    A `newcomer` joins others that are already serving, and so starts slowly. `clock` gives seconds. `on_return` is told
    its name when it is back after it was away, and whatever it held before may be gone; `on_open`, its name and what
    `Breaker` tells. `facts` and `status` change
    nothing, and may be asked for from any thread.
    """

    def __init__(
        self,
        backend: Backend,
        config: DeploymentConfig,
        *,
        newcomer: bool,
        clock: Callable[[], float],
        chance: random.Random,
        on_return: Callable[[str], None] = lambda _name: None,
        on_open: Callable[[str, float, str], None] = lambda name, open_for_s, why: None,
    ) -> None:
        self.backend = backend
        self.name = backend.status().replicas[0].name
        self.in_flight = 0
        """Calls from their choice until their stream is closed, however it closes."""
        self.leaving = False
        self.tally = Tally()
        self.breaker = Breaker(config.breaker, clock=clock, chance=chance, on_open=partial(on_open, self.name))
        self._slow_start_s = config.slow_start
        self._clock = clock
        self._on_return = on_return
        self._away = newcomer
        self._ready_since = backend.facts().ready_since
        self._lost_since: float | None = float("-inf") if newcomer else None
        self._well_since: float | None = None
        self._paused_until = float("-inf")
        self._idle = asyncio.Event()
        self._idle.set()
        self.observe()

    def __repr__(self) -> str:
        state, breaker = self.backend.facts().state.name, self.breaker.state.value
        paused = f" paused={self.paused_s:.1f}s" if self.paused_s else ""
        leaving = " leaving" if self.leaving else ""
        return (
            f"<Replica {self.name} {state} breaker={breaker} weight={self.weight:.2f} in_flight={self.in_flight}"
            f"{paused}{leaving}>"
        )

    def adopt(self, config: ModelConfig) -> None:
        """Takes on the options of the breaker and the slow start; the backend takes on its own."""
        self.backend.adopt(config)
        self.breaker.adopt(config.breaker)
        self._slow_start_s = config.slow_start

    def is_available(self) -> bool:
        """Whether a call that is sent there now is likely to be answered."""
        return self.observe() is ModelState.WARM and self.breaker.closed and not self.paused_s and not self.leaving

    def observe(self) -> ModelState:
        """Its backend's state now. One that was away and is back has its breaker half-opened, and its pause is over.

        One that was lost starts slowly besides, unless it was for no longer than `BLINK_S` and its breaker is closed:
        then it has lost a connection, and nothing else. That one was away may be seen only now, by what it is ready
        since: while no call came, nobody looked.
        """
        facts = self.backend.facts()
        if facts.state is not ModelState.WARM:
            self._away = True
            if facts.state is ModelState.FAILED and self._lost_since is None:
                self._lost_since = self._clock()
        elif self._away or facts.ready_since != self._ready_since:
            self._away, self._ready_since = False, facts.ready_since
            now, lost_since, self._lost_since = self._clock(), self._lost_since, None
            blinked = lost_since is not None and now - lost_since <= BLINK_S
            if not (blinked and self.breaker.closed):
                if lost_since is not None:
                    self._well_since = now
                self._paused_until = float("-inf")
                self._on_return(self.name)
            self.breaker.half_open()
        return facts.state

    @property
    def paused_s(self) -> float:
        """Seconds for which it has asked to be spared (`Retry-After`)."""
        return max(0.0, self._paused_until - self._clock())

    @property
    def weight(self) -> float:
        """Its share of an equal share of the load: 1, or less while it starts slowly."""
        well_since, slow_start_s = self._well_since, self._slow_start_s
        if well_since is None or slow_start_s is None:
            return 1.0
        return min(1.0, max(LEAST_WEIGHT, (self._clock() - well_since) / slow_start_s))

    @property
    def candidate(self) -> Candidate:
        """What a policy sees of it."""
        return Candidate(self.name, self.in_flight, self.weight)

    def admit(self) -> Admission:
        """A call goes there; to be given back to `release` once its stream is closed."""
        self.in_flight += 1
        self._idle.clear()
        return self.breaker.admit()

    def answering(self, admission: Admission) -> None:
        """The call's answer has begun."""
        if self.breaker.answering(admission):
            self._well_since = self._clock()

    def failed(self, admission: Admission, error: PolyrouteError, *, excused: bool) -> None:
        """The call has failed; `excused` where that is not the replica's fault, whatever the error says."""
        self.observe()  # what has failed may be gone, and back before the next call looks
        self._paused_until = max(self._paused_until, self._clock() + pause_s(error))
        if is_replicas_fault(error) and not excused:
            self.breaker.failed(admission, f"{error.reason}: {clip(error.message, _QUOTED_CHARS)}")
        else:
            self.breaker.left(admission)

    def release(self) -> None:
        """The call's stream is closed."""
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()

    async def drained(self, grace_s: float) -> None:
        """Returns once no call is in flight, after `grace_s` seconds at the latest."""
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            return

    def facts(self) -> Facts:
        """Its backend's facts, with what the pool knows of it: an open breaker is a failed replica."""
        facts = self.backend.facts()
        if self.breaker.closed and not self.leaving:
            return facts
        state = self._state(facts.state, self.breaker.state)
        return facts if state is facts.state else replace(facts, state=state)

    def _state(self, told: ModelState, breaker: BreakerState) -> ModelState:
        if self.leaving:
            return ModelState.DRAINING
        return ModelState.FAILED if breaker is BreakerState.OPEN else told

    def status(self) -> BackendStatus:
        """Its backend's status, with what the pool knows of it, as in `facts`."""
        status, breaker, paused_s, weight = self.backend.status(), self.breaker.state, self.paused_s, self.weight
        state = self._state(status.state, breaker)
        details = [status.detail]
        if breaker is BreakerState.OPEN:
            details.append(f"breaker open for {self.breaker.opens_for_s:.1f} s more: {self.breaker.why}")
        elif breaker is BreakerState.HALF_OPEN:
            details.append(f"breaker half-open, tried with few calls: {self.breaker.why}")
        if paused_s:
            details.append(f"asked to be spared for {paused_s:.1f} s more")
        if weight < 1:
            details.append(f"starts slowly, weight {weight:.2f}")
        detail = "; ".join(filter(None, details))
        shown = status.replicas[0]
        shown = replace(
            shown,
            state=state,
            detail=detail,
            in_flight=max(self.in_flight, shown.in_flight),  # a worker may still hold what has left the pool
            weight=weight,
            breaker=breaker.value,
            ejections=self.breaker.openings,
            attempts=self.tally.counts(),
        )
        return replace(status, state=state, detail=detail, replicas=(shown,))
