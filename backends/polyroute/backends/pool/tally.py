"""What one replica's attempts came to, and how long they took."""

from __future__ import annotations

from bisect import bisect_left

from polyroute.core.backend import AttemptCounts
from polyroute.core.telemetry import REPLICA_FIRST_TOKEN


class Tally:
    """Counts for as long as the replica is there. `counts` may be asked for from any thread."""

    def __init__(self) -> None:
        self._outcomes: dict[str, int] = {}
        self._first_sizes = [0] * (len(REPLICA_FIRST_TOKEN.buckets) + 1)
        self._first_s = 0.0
        self._ended_s = 0.0

    def answering(self, after_s: float) -> None:
        """An attempt has begun to answer, `after_s` seconds after the replica was asked."""
        self._first_sizes[bisect_left(REPLICA_FIRST_TOKEN.buckets, after_s)] += 1
        self._first_s += after_s

    def ended(self, outcome: str, took_s: float) -> None:
        """An attempt is over after `took_s` seconds: `ok`, or an error's reason."""
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        self._ended_s += took_s

    def counts(self) -> AttemptCounts:
        """Everything so far."""
        return AttemptCounts(self._outcomes.copy(), tuple(self._first_sizes), self._first_s, self._ended_s)
