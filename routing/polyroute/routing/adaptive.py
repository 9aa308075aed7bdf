"""A limit of concurrency that finds out by itself how much a peer can bear: `max_concurrency: auto`."""

from __future__ import annotations

import math
import statistics
from typing import Final

_START: Final = 4
_ROUND: Final = 16
_TOLERANCE: Final = 2.0
_LEAST_CUT: Final = 0.9
_GROWTH: Final = 0.05
_FIRST_GROWTH: Final = 0.5
_PROBE_CUT: Final = 0.5
_BASE_AGE_S: Final = 600.0
_FAR_OVER: Final = 3.0


class AdaptiveLimit:
    """Between `least` and `most` calls at once, by how long calls take to their first token.

    That time, unlike the whole answer's, does not depend on how much is written; and once a peer's own batch is full,
    it grows by the wait for a place there. After every round of 16 first tokens their median is held against `base_s`,
    the time without congestion:

    - up to twice that, the limit grows by one and a twentieth; by one and a half until it was too much for once;
    - beyond, it is multiplied by `2 * base_s / median`, but takes off a tenth at most: the gradient of Netflix's
      concurrency-limits (`GradientLimit`, 2018), over a round's median as in Envoy's adaptive concurrency filter;
    - where the peer says that it has too much (429), or gives no first token in time, a tenth is taken off, once for
      all calls that were running then (additive increase, multiplicative decrease: Chiu and Jain, 1989).

    What `base_s` is cannot be seen while the whole limit is in use. So after the first round, and then every ten
    minutes of full use, one round is run at half of the limit, as BBR does to see the minimum of its round trip times
    (Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016: ProbeRTT). Where that takes less than a third of
    the time, even the half may have been too much: the limit stays there, and the next round but one probes again.

    A round counts calls that began after the limit last changed, so that each change is judged by its own effect and
    not by that of what was running before. While no more than half of the limit is in use it stays, and `base_s`
    follows what is seen. Times are in seconds, on the clock that the caller reads.
    """

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most
        self.base_s: float | None = None
        """First-token time without congestion, as far as is known."""
        self._limit = float(min(max(_START, least), most))
        self._growth = _FIRST_GROWTH
        self._base_since = -math.inf
        self._before_probe: tuple[float, float] | None = None  # the limit and the median there
        self._changed = -math.inf
        self._round: list[float] = []
        self._busiest = 0

    def __repr__(self) -> str:
        return f"<AdaptiveLimit {self()} of {self.least}-{self.most}, base {self.base_s}>"

    def __call__(self) -> int:
        """The limit now."""
        return int(self._limit)

    def like(self, other: AdaptiveLimit) -> bool:
        """Whether it has the bounds of `other`."""
        return (self.least, self.most) == (other.least, other.most)

    @property
    def probing(self) -> bool:
        """Whether the limit is halved for a round, to learn the time without congestion."""
        return self._before_probe is not None

    def answered(self, begun: float, now: float, in_flight: int) -> None:
        """A call that got its permit at `begun` has its first token; `in_flight` is how many there were just then."""
        if begun < self._changed:
            return
        self._round.append(now - begun)
        self._busiest = max(self._busiest, in_flight)
        if len(self._round) >= _ROUND:
            self._judge(statistics.median(self._round), now)

    def overloaded(self, begun: float, now: float) -> None:
        """A call that got its permit at `begun` was refused for overload, or got no first token in time."""
        if begun >= self._changed:
            self._before_probe = None
            self._growth = _GROWTH
            self._set(self._limit * _LEAST_CUT, now)

    def _judge(self, median_s: float, now: float) -> None:
        if self._before_probe is not None:
            self._probed(self._before_probe, median_s, now)
        elif 2 * self._busiest <= self._limit:
            self._rest(median_s, now)
        elif now - self._base_since > _BASE_AGE_S and self._limit > self.least:
            self._before_probe = (self._limit, median_s)
            self._set(self._limit * _PROBE_CUT, now)
        else:
            self._step(median_s, now)

    def _step(self, median_s: float, now: float) -> None:
        if self.base_s is None:
            self.base_s = median_s
        gradient = _TOLERANCE * self.base_s / median_s if median_s > 0 else 1.0
        if gradient >= 1:
            self._set(self._limit * (1 + self._growth) + 1, now)
        else:
            self._growth = _GROWTH
            self._set(self._limit * max(gradient, _LEAST_CUT), now)

    def _probed(self, before: tuple[float, float], median_s: float, now: float) -> None:
        limit, congested_s = before
        self._before_probe = None
        self.base_s = median_s
        far_over = congested_s > _FAR_OVER * median_s
        self._base_since = -math.inf if far_over else now
        self._set(self._limit if far_over else limit, now)

    def _rest(self, median_s: float, now: float) -> None:
        self.base_s = median_s if self.base_s is None else self.base_s + 0.2 * (median_s - self.base_s)
        self._base_since = now
        self._begin()

    def _set(self, limit: float, now: float) -> None:
        self._limit = min(max(limit, float(self.least)), float(self.most))
        self._changed = now
        self._begin()

    def _begin(self) -> None:
        self._round = []
        self._busiest = 0
