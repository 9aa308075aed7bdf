"""When something that has failed is asked again: a plain decision, with the time as its only input."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_TOLERATED: Final = 3
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0


class Guard:
    """Lets all through until three in a row have failed; then one at a time, at growing intervals, until one works.

    So what is down costs a few calls their time limit, then one call now and then, and nobody else anything.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._pause_s = _FIRST_PAUSE_S
        self._again_at = 0.0

    def __repr__(self) -> str:
        return f"<Guard {'open' if self.open else 'shut'} failures={self._failures}>"

    @property
    def open(self) -> bool:
        """Whether all are let through."""
        return self._failures < _TOLERATED

    def admits(self) -> bool:
        """Whether this one may try; who may says `worked` or `failed` afterwards."""
        if self.open:
            return True
        now = self._clock()
        if now < self._again_at:
            return False
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._again_at = now + self._pause_s
        return True

    def worked(self) -> None:
        """One that was let through has come back well."""
        self._failures = 0

    def failed(self) -> None:
        """One that was let through has failed, or took too long."""
        self._failures += 1
        if self._failures == _TOLERATED:
            self._pause_s = _FIRST_PAUSE_S
            self._again_at = self._clock() + _FIRST_PAUSE_S
