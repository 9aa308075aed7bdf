"""A gate of fixed windows, as Flagger has it."""

from __future__ import annotations

from typing import Final

from benchmarks.experiments.traffic import Outcome

_WINDOW_S: Final = 60.0
_STEP: Final = 0.1
_MOST: Final = 0.5
_FAILED_CHECKS: Final = 5
_LEAST_SUCCESS: Final = 0.97
_SLOWEST_S: Final = 16.0


class Gate:
    """Flagger's analysis with the values of its documentation: every minute the canary's success rate and its 99th
    percentile are held against thresholds (https://docs.flagger.app/usage/how-it-works, "Canary analysis").

    A window that passes adds 10% of the traffic; beyond 50% the canary is promoted. The fifth that fails turns it back,
    and one without calls fails ("no values found"). The thresholds lie halfway between a healthy and a bad version: 97%
    successes, and 16 s, where 1% of a healthy version's answers take 10.8 s and of one half as fast 21.6 s.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.weight = _STEP
        self.ended: bool | None = None
        """Whether it was promoted, once it has ended."""
        self._failed_checks = 0
        self._window: list[Outcome] = []

    def saw(self, ended: Outcome) -> None:
        """A call to the canary has ended."""
        self._window.append(ended)

    def look(self, now: float) -> None:
        """Closes the windows that are over."""
        while self.ended is None and now >= self.now + _WINDOW_S:
            self.now += _WINDOW_S
            passed, self._window = self._passes(), []
            if not passed:
                self._failed_checks += 1
                if self._failed_checks >= _FAILED_CHECKS:
                    self.ended = False
            elif self.weight >= _MOST:
                self.ended = True
            else:
                self.weight += _STEP

    def _passes(self) -> bool:
        if not self._window:
            return False
        successes = sum(not each.failed for each in self._window) / len(self._window)
        times = sorted(each.total_s for each in self._window)
        return successes >= _LEAST_SUCCESS and times[min(int(0.99 * len(times)), len(times) - 1)] <= _SLOWEST_S
