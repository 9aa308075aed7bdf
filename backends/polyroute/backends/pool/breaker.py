"""A circuit breaker: a replica that fails is left alone for a while, then tried with few calls."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias

from polyroute.backends.pool.window import Window
from polyroute.core.config import BreakerConfig

JITTER: Final = 0.5
"""The open time is shortened at random by up to this share, so that routers do not come back all at once."""

Admission: TypeAlias = int
"""What `Breaker.admit` gives, and takes back with the outcome."""


class BreakerState(Enum):
    """Whether calls get through: all, none, or a few that try it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The breaker of one replica (M. Nygard, "Release It!", "Circuit Breaker").

    Each call is admitted once and reported once: `succeeded`, `failed`, or `left` where its end says nothing of the
    replica; a report of a call that was let in before the breaker last changed changes nothing. Without a `config` it
    never opens. `clock` gives seconds. Asking it changes nothing, so that it can be asked from any thread. `on_open` is
    told when it opens by what it has seen itself: for how many seconds, and for what.
    """

    def __init__(
        self,
        config: BreakerConfig | None,
        *,
        clock: Callable[[], float],
        chance: random.Random,
        on_open: Callable[[float, str], None] = lambda open_for_s, why: None,
    ) -> None:
        self.openings = 0
        """How often it has opened."""
        self.why = ""
        """What it opened for, in words."""
        self.closed = True
        """Whether all calls get through."""
        self._config = config
        self._clock = clock
        self._chance = chance
        self._on_open = on_open
        self._state = BreakerState.CLOSED
        self._era: Admission = 0
        self._in_a_row = 0
        self._trials = 0
        self._relapses = 0
        self._until = 0.0
        self._closed_at = float("-inf")
        self._by_probe = False
        self._misled = False
        self._outcomes = Window(config.window if config else 1.0, clock)

    def __repr__(self) -> str:
        return f"<Breaker {self.state.value} {self._in_a_row} in a row, {self._outcomes.marked}/{self._outcomes.count}>"

    def adopt(self, config: BreakerConfig | None) -> None:
        """Judges by another configuration from now on; while open, it stays so for as long as it was to be.

        Without a configuration it closes.
        """
        if config == self._config:
            return
        window_s = self._config.window if self._config else None
        if config is not None and config.window != window_s:
            self._outcomes = Window(config.window, self._clock)
        self._config = config
        if config is None and not self.closed:
            self._become(BreakerState.CLOSED)

    @property
    def state(self) -> BreakerState:
        """As it is now: an open one becomes half-open with time."""
        state = self._state
        return BreakerState.HALF_OPEN if state is BreakerState.OPEN and self._clock() >= self._until else state

    @property
    def opens_for_s(self) -> float:
        """Seconds until it lets a call through by itself; 0 where that is now."""
        return max(0.0, self._until - self._clock()) if self.state is BreakerState.OPEN else 0.0

    def admits(self) -> bool:
        """Whether a call may go through."""
        if self.closed:
            return True
        config = self._config
        return config is not None and self.state is BreakerState.HALF_OPEN and self._trials < config.probes

    def admit(self) -> Admission:
        """Lets a call through, which `admits` has allowed."""
        if not self.closed and self.state is BreakerState.HALF_OPEN:
            if self._state is BreakerState.OPEN:
                self._become(BreakerState.HALF_OPEN)
            self._trials += 1
        return self._era

    def half_open(self) -> None:
        """Ends the open time: a health probe has shown that the replica may be well again.

        Not again where a call after such a probe has failed: what probes ask for works there, and what calls ask for
        does not. Then only time helps.
        """
        if self.state is BreakerState.OPEN and not self._misled:
            self._become(BreakerState.HALF_OPEN)
            self._by_probe = True

    def answering(self, admission: Admission) -> bool:
        """A call has begun to be answered, which closes a half-open breaker: the end may be minutes away.

        Says whether it has closed it.
        """
        if self._state is not BreakerState.HALF_OPEN or admission != self._era:
            return False
        self._closed_at = self._clock()
        self._misled = False
        self._become(BreakerState.CLOSED)
        return True

    def succeeded(self, admission: Admission) -> None:
        """A call was answered."""
        self.answering(admission)
        if self.closed and admission == self._era:
            self._in_a_row = 0
            self._outcomes.add()

    def failed(self, admission: Admission, why: str) -> None:
        """A call failed by the replica's fault, `why` in words."""
        config = self._config
        if config is None or admission != self._era:
            return
        if self._state is BreakerState.HALF_OPEN:
            self._misled |= self._by_probe
            self._open(config, why)
            return
        self._in_a_row += 1
        self._outcomes.add(1, 1)
        count, failures = self._outcomes.count, self._outcomes.marked
        if self._in_a_row >= config.failures:
            self._open(config, f"{self._in_a_row} failures in a row, the last: {why}")
        elif count >= config.min_calls and failures >= config.ratio * count:
            self._open(config, f"{failures} of {count} calls failed, the last: {why}")

    def heed(self, open_for_s: float, why: str) -> None:
        """Another process has opened its breaker of the replica: a closed one opens for as long, and counts no opening.

        One that is not closed has seen for itself.
        """
        if self._config is not None and self.closed:
            self._begin_illness(self._config)
            self._stay_open(open_for_s, why)

    def left(self, admission: Admission) -> None:
        """A call ended without saying anything of the replica: cancelled, or refused by the caller's own fault."""
        if admission == self._era and self._state is BreakerState.HALF_OPEN:
            self._trials -= 1

    def _open(self, config: BreakerConfig, why: str) -> None:
        self._begin_illness(config)
        open_for_s = self._open_s(config)
        self.openings += 1
        self._stay_open(open_for_s, why)
        self._on_open(open_for_s, why)

    def _begin_illness(self, config: BreakerConfig) -> None:
        """Forgets earlier ones where this is a new one."""
        if self.closed and self._clock() - self._closed_at > config.window:
            self._relapses = 0

    def _stay_open(self, open_for_s: float, why: str) -> None:
        self._until = self._clock() + open_for_s
        self._relapses += 1
        self.why = why
        self._become(BreakerState.OPEN)

    def _open_s(self, config: BreakerConfig) -> float:
        longest = min(config.max_open, config.open * 2.0 ** min(self._relapses, 32))
        return longest * (1 - JITTER * self._chance.random())

    def _become(self, state: BreakerState) -> None:
        self._state, self.closed = state, state is BreakerState.CLOSED
        self._era += 1
        self._by_probe = False
        self._trials = self._in_a_row = 0
        self._outcomes.clear()
