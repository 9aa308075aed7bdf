"""How many retries there may be, so that they never amplify an outage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from polyroute.backends.pool.window import Window
from polyroute.core.config import RetryBudgetConfig

WINDOW_S: Final = 10.0


class RetryBudget:
    """Allows retries, hedges among them, as a share of the calls of the last `WINDOW_S` seconds and a floor besides.

    After Finagle's `RetryBudget` and Linkerd's retry budgets: a fixed number of retries a call multiplies the load
    just when nothing answers; a share of the traffic adds that share at most.
    """

    def __init__(self, config: RetryBudgetConfig, clock: Callable[[], float]) -> None:
        self._calls = Window(WINDOW_S, clock)
        self.adopt(config)

    def adopt(self, config: RetryBudgetConfig) -> None:
        """Allows so many from now on; what was used already counts."""
        self._share = config.share
        self._floor = config.min_per_second * WINDOW_S

    def __repr__(self) -> str:
        return f"<RetryBudget {self._calls.marked} of {self._most:g} used>"

    @property
    def _most(self) -> float:
        return self._share * self._calls.count + self._floor

    def called(self) -> None:
        """A call has come in."""
        self._calls.add()

    def take(self) -> bool:
        """Takes one retry; False where none is left."""
        if self._calls.marked + 1 > self._most:
            return False
        self._calls.add(0, 1)
        return True
