"""How many replicas a model should have: pure functions, without clock, chance or I/O.

More are wanted when calls have been waiting for a while, fewer when the work has needed fewer for long. The two are
far apart, so that work which stays as it is leaves the number as it is: a queue means that every place is taken, and a
replica leaves only when the others would be half empty without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from polyroute.core.config import LocalConfig

PRESSED_S: Final = 5.0
"""How long calls must have been waiting before another replica is started, in seconds."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What `warm` says: replicas kept, the most there may be, and when one that is not needed leaves."""

    min: int
    max: int
    idle_unload_s: float

    @classmethod
    def of(cls, config: LocalConfig) -> Bounds:
        """Those of a model's effective configuration.

        There are no more replicas than permits, but for those to be kept: one without a permit would never get a call.
        """
        least = config.warm.min or 0
        most = max(1, least) if config.warm.max is None else config.warm.max
        if config.max_concurrency is not None:
            most = min(most, config.max_concurrency)
        return cls(least, max(least, most), config.warm.idle_unload)


@dataclass(frozen=True, slots=True)
class Work:
    """What a model's replicas have to do: `in_flight` calls of which each replica answers `seats` at once, and those
    that wait for a permit, `queued`; `used_at` is when the last call began or ended."""

    in_flight: int
    queued: int
    seats: int
    used_at: float


@dataclass(frozen=True, slots=True)
class Trend:
    """Since when `replicas` have been too few, and since when they have been too many; None where they are not."""

    replicas: int = 0
    pressed_since: float | None = None
    spare_since: float | None = None


def follow(trend: Trend, replicas: int, work: Work, now: float) -> Trend:
    """The trend with what is seen now. It begins anew with another number of replicas."""
    if trend.replicas != replicas:
        trend = Trend(replicas)
    spare_since = None
    if spare(replicas, work):
        spare_since = now if trend.spare_since is None else trend.spare_since
        if not work.in_flight:  # and calls may have come and gone unseen
            spare_since = max(work.used_at, spare_since) if trend.spare_since is not None else work.used_at
    pressed_since = None
    if pressed(replicas, work):
        pressed_since = now if trend.pressed_since is None else trend.pressed_since
    return Trend(replicas, pressed_since, spare_since)


def pressed(replicas: int, work: Work) -> bool:
    """Whether calls wait: for a permit, or with one for a seat, where there are more permits than seats."""
    return bool(work.queued) or work.in_flight > replicas * work.seats


def spare(replicas: int, work: Work) -> bool:
    """Whether one replica fewer would do, and be half empty."""
    if replicas == 0 or work.queued:
        return False
    return 2 * work.in_flight <= (replicas - 1) * work.seats


def wanted(trend: Trend, bounds: Bounds, now: float) -> int:
    """How many replicas there should be: at most one more or one fewer than there are, unless `min` asks for more."""
    if trend.replicas < bounds.min:
        return bounds.min
    if trend.replicas > bounds.max:
        return trend.replicas - 1
    long_pressed = trend.pressed_since is not None and now - trend.pressed_since >= PRESSED_S
    if long_pressed and trend.replicas < bounds.max:
        return trend.replicas + 1
    idle = trend.spare_since is not None and now - trend.spare_since >= bounds.idle_unload_s
    if idle and trend.replicas > bounds.min:
        return trend.replicas - 1
    return trend.replicas
