"""Pairs the calls of two versions as they end, each with one of the other version that ended at about the same time."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Final, Generic, TypeVar

from polyroute.routing.experiments.pairs import Pairs
from polyroute.routing.experiments.ratio import Ratios
from polyroute.routing.experiments.rollout.evidence import Evidence, Tally

T = TypeVar("T")

_UNPAIRED: Final = 64
"""Calls of one version that wait for one of the other; beyond, the oldest is left unpaired."""

_ALONE: Final = 2
"""How many times as many failures in a row stop a version where the other has had no call meanwhile."""


class Comparison:
    """The evidence of one router, which began with `evidence`; `consecutive` failures in a row stop the new version.

    A call is paired by when it ended alone, never by how: so the pairs of two equal versions come out either way with
    equal probability, whatever else changes meanwhile. Where the old version has more traffic, only as much of it as
    the new one has is compared: a concurrent control of equal weight.
    """

    def __init__(self, evidence: Evidence, consecutive: int | None) -> None:
        self.consecutive = consecutive
        self._before = evidence
        self._calls = {True: [0, 0], False: [0, 0]}
        self._failures: _Pairing[bool] = _Pairing()
        self._first_tokens: _Pairing[float] = _Pairing()
        self._durations: _Pairing[float] = _Pairing()
        self._ratings: defaultdict[str, _Pairing[float]] = defaultdict(_Pairing)
        self._stop = evidence.stop
        self._in_a_row = 0
        self._old_since = [0, 0]

    def answered(self, new: bool, first_token_s: float, total_s: float) -> None:
        """A call that was answered; `new` says by which version."""
        self._counted(new, failed=False)
        self.took(new, first_token_s, total_s)

    def failed(self, new: bool) -> None:
        """A call that its version failed."""
        self._counted(new, failed=True)

    def took(self, new: bool, first_token_s: float, total_s: float) -> None:
        """The times of a call, in seconds, or how long its caller waited for it in vain."""
        self._first_tokens.add(new, first_token_s)
        self._durations.add(new, total_s)

    def rated(self, new: bool, metric: str, rating: float) -> None:
        """What a caller said of an answer; more is better. Paired by when it was said."""
        self._ratings[metric].add(new, rating)

    def anew(self) -> None:
        """Traffic is shared otherwise from now on: nothing from before is compared with what comes."""
        for pairing in (self._failures, self._first_tokens, self._durations):
            pairing.anew()
        for ratings in self._ratings.values():
            ratings.anew()
        self._in_a_row, self._old_since = 0, [0, 0]

    @property
    def stop(self) -> str:
        """Why the new version has to be stopped at once; empty where nothing has to."""
        return self._stop

    def evidence(self) -> Evidence:
        """Everything seen so far, that which it began with included."""
        found = Evidence(
            old=Tally(*self._calls[False]),
            new=Tally(*self._calls[True]),
            errors=Pairs.of(self._failures.taken()),
            first_token=Ratios.of(self._first_tokens.taken()),
            duration=Ratios.of(self._durations.taken()),
            ratings={name: Pairs.of(pairing.taken()).swapped for name, pairing in self._ratings.items()},
            stop=self._stop,
        )
        self._calls = {True: [0, 0], False: [0, 0]}
        self._before += found
        return self._before

    def _counted(self, new: bool, *, failed: bool) -> None:
        self._calls[new][0] += 1
        self._calls[new][1] += failed
        self._failures.add(new, failed)
        if not new:
            self._old_since[failed] += 1
        elif not failed:
            self._in_a_row, self._old_since = 0, [0, 0]
        else:
            self._in_a_row += 1
            self._look()

    def _look(self) -> None:
        """Stops the new version when it fails again and again, unless the old one does so too."""
        if self.consecutive is None or self._stop or self._in_a_row < self.consecutive:
            return
        answered, failed = self._old_since
        if answered > failed:
            self._stop = f"{self._in_a_row} calls in a row failed, while the old version answered {answered}"
        elif not answered + failed and self._in_a_row >= _ALONE * self.consecutive:
            self._stop = f"{self._in_a_row} calls in a row failed, and the old version had none"


class _Pairing(Generic[T]):
    """Each call with the latest of the other version that has no partner yet."""

    def __init__(self) -> None:
        self._waiting: dict[bool, deque[T]] = {True: deque(maxlen=_UNPAIRED), False: deque(maxlen=_UNPAIRED)}
        self._pairs: list[tuple[T, T]] = []

    def add(self, new: bool, value: T) -> None:
        others = self._waiting[not new]
        if not others:
            self._waiting[new].append(value)
            return
        other = others.pop()
        self._pairs.append((value, other) if new else (other, value))

    def anew(self) -> None:
        """Leaves everything unpaired that waits."""
        for waiting in self._waiting.values():
            waiting.clear()

    def taken(self) -> list[tuple[T, T]]:
        """The pairs since the last time, the new version's value first."""
        pairs, self._pairs = self._pairs, []
        return pairs
