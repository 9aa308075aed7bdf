"""Published limits that were considered and not chosen, each as its source describes it."""

from __future__ import annotations

import math
import statistics

_ROUND = 10


class _Round:
    """Ten first-token times, and the most calls in flight among them."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.busiest = 0

    def add(self, time_s: float, in_flight: int) -> bool:
        """Notes one; says whether the round is complete."""
        self.times_s.append(time_s)
        self.busiest = max(self.busiest, in_flight)
        return len(self.times_s) >= _ROUND


class Gradient2:
    """Netflix's concurrency-limits, `Gradient2Limit`: a short average against an exponential one over 600 samples."""

    def __init__(self, least: int, most: int, *, start: int = 20) -> None:
        self._least, self._most, self._limit = least, most, float(start)
        self._long: float | None = None
        self._windows = 0
        self._round = _Round()

    def __call__(self) -> int:
        return int(self._limit)

    def answered(self, begun: float, now: float, in_flight: int) -> None:
        if not self._round.add(now - begun, in_flight):
            return
        short, busiest = statistics.fmean(self._round.times_s), self._round.busiest
        self._round = _Round()
        self._windows += 1
        long = short if self._long is None else self._long
        long += (short - long) * (1 / self._windows if self._windows <= 10 else 2 * _ROUND / (600 + _ROUND))
        self._long = long * 0.95 if long > 2 * short else long
        if busiest >= self._limit / 2:
            gradient = max(0.5, min(1.0, 1.5 * self._long / short))
            wanted = self._limit * gradient + 4
            self._limit = min(max(0.8 * self._limit + 0.2 * wanted, self._least), self._most)

    def overloaded(self, begun: float, now: float) -> None:
        self._limit = max(self._limit * 0.9, self._least)


class Vegas:
    """TCP Vegas (Brakmo and Peterson, 1994) as in concurrency-limits, `VegasLimit`: against the minimum ever seen."""

    def __init__(self, least: int, most: int, *, start: int = 20) -> None:
        self._least, self._most, self._limit = least, most, float(start)
        self._base = math.inf
        self._round = _Round()

    def __call__(self) -> int:
        return int(self._limit)

    def answered(self, begun: float, now: float, in_flight: int) -> None:
        self._base = min(self._base, now - begun)
        if not self._round.add(now - begun, in_flight):
            return
        median, busiest = statistics.median(self._round.times_s), self._round.busiest
        self._round = _Round()
        if busiest < self._limit / 2:
            return
        queued, unit = self._limit * (1 - self._base / median), math.log10(max(self._limit, 10))
        if queued <= unit:
            self._limit += 6 * unit
        elif queued < 3 * unit:
            self._limit += unit
        elif queued > 6 * unit:
            self._limit -= unit
        self._limit = min(max(self._limit, self._least), self._most)

    def overloaded(self, begun: float, now: float) -> None:
        self._limit = max(self._limit - math.log10(max(self._limit, 10)), self._least)


class Aimd:
    """Additive increase, multiplicative decrease (Chiu and Jain, 1989) by refusals and a fixed first-token time."""

    def __init__(self, least: int, most: int, *, start: int = 20, slow_s: float = 5.0) -> None:
        self._least, self._most, self._limit = least, most, float(start)
        self._slow_s = slow_s

    def __call__(self) -> int:
        return int(self._limit)

    def answered(self, begun: float, now: float, in_flight: int) -> None:
        if now - begun > self._slow_s:
            self.overloaded(begun, now)
        elif 2 * in_flight >= self._limit:
            self._limit = min(self._limit + 1 / self._limit, self._most)

    def overloaded(self, begun: float, now: float) -> None:
        self._limit = max(self._limit * 0.9, self._least)
