"""How fast permits come back while all are in use: what waits and retry delays are estimated from."""

from __future__ import annotations

import statistics
from collections import deque

_REMEMBERED = 32
_ENOUGH = 20
_CERTAIN = 16


class Pace:
    """The last intervals between two returns of a permit, each as the service time that it stands for, in seconds.

    With `n` permits all in use, one returning every `t` seconds means that calls take `n * t` (Little's law). Taken so
    rather than from how long each call held its permit, a load that many calls sat out together, or a peer that stood
    still, is one long interval among many. An interval counts only where every permit was in use throughout: else it
    shows how many calls there were, not how fast they are served.
    """

    def __init__(self) -> None:
        self._service: deque[float] = deque(maxlen=_REMEMBERED)

    def returned(self, interval_s: float, in_use: int) -> None:
        """A permit came back `interval_s` after the one before, `in_use` having been held in between."""
        self._service.append(interval_s * in_use)

    def wait_s(self, place: int, limit: int) -> float | None:
        """When `place` more permits (1 is the next) are likely to have come back; None while nothing is known."""
        return statistics.fmean(self._service) * place / limit if self._service else None

    def least_wait_s(self, place: int, limit: int) -> float:
        """A wait that can be relied upon not to be shorter; 0 where nothing can.

        Half of the median, and for places from the sixteenth on: were permits to come back at random (a Poisson
        process), fewer than one call in a thousand would get there sooner, and fewer yet at later places. A single long
        interval does not move the median, and permits that come back in batches make it nothing at all.
        """
        if place < _CERTAIN or len(self._service) < _ENOUGH:
            return 0.0
        return statistics.median(self._service) / 2 * place / limit
