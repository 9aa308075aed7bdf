"""What a rollout has seen of its two versions, in numbers that add up over routers and fit into a row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from polyroute.routing.experiments.pairs import Pairs
from polyroute.routing.experiments.ratio import Ratios


@dataclass(frozen=True, slots=True)
class Tally:
    """Calls of one version that count, and how many of them failed."""

    calls: int = 0
    failed: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.calls + other.calls, self.failed + other.failed)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Pairs of calls to the old and the new version: of failures, of times to the first token, and to the last.

    `ratings` are pairs of answers that callers rated, by the metric; the new one is bad where its rating is the lower.
    `stop` says why the new version has to be stopped at once; it is empty where nothing has to.
    """

    old: Tally = field(default_factory=Tally)
    new: Tally = field(default_factory=Tally)
    errors: Pairs = field(default_factory=Pairs)
    first_token: Ratios = field(default_factory=Ratios)
    duration: Ratios = field(default_factory=Ratios)
    ratings: Mapping[str, Pairs] = field(default_factory=dict)
    stop: str = ""

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            self.old + other.old,
            self.new + other.new,
            self.errors + other.errors,
            self.first_token + other.first_token,
            self.duration + other.duration,
            {name: self.rated(name) + other.rated(name) for name in {**self.ratings, **other.ratings}},
            self.stop or other.stop,
        )

    def rated(self, metric: str) -> Pairs:
        """The pairs of answers that have ratings by this metric."""
        return self.ratings.get(metric, Pairs())

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(
            {
                "old": [self.old.calls, self.old.failed],
                "new": [self.new.calls, self.new.failed],
                "errors": [self.errors.worse, self.errors.even, self.errors.better],
                "first_token": sorted(self.first_token.buckets.items()),
                "duration": sorted(self.duration.buckets.items()),
                "ratings": {name: [each.worse, each.even, each.better] for name, each in self.ratings.items()},
                "stop": self.stop,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Evidence:
        """What `to_json` wrote."""
        kept: dict[str, Any] = json.loads(text)
        return cls(
            Tally(*kept["old"]),
            Tally(*kept["new"]),
            Pairs(*kept["errors"]),
            Ratios(dict(kept["first_token"])),
            Ratios(dict(kept["duration"])),
            {name: Pairs(*counts) for name, counts in kept.get("ratings", {}).items()},
            kept["stop"],
        )
