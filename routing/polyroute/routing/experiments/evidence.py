"""What a report is made of: counts and sums of each metric, by route, minute, split and arm."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from polyroute.routing.experiments.records import OK, CallRecord, Shares
from polyroute.routing.experiments.shadow.pair import Pair

ASSIGNED: Final = "assigned"
"""Metric that counts what chance assigned: each key once, or each call where calls fall anew."""

ERRORS: Final = "error_rate"
FIRST_TOKEN: Final = "first_token_s"  # noqa: S105 - no password
TOTAL: Final = "total_s"
TOKENS: Final = "completion_tokens"

FEEDBACK: Final = "feedback."
"""How the metric of a caller's feedback begins; its own name follows."""

PINNED: Final = "(pinned) "
"""How the arm begins that feedback on a pinned call is counted for; the variant's name follows."""

PER_REQUEST: Final = "request"
"""`sticky_by` of calls that fall anew each."""


RATIOS: Final = ("length_ratio", "first_token_ratio", "total_ratio")
"""Metrics of pairs: the copy's over the caller's."""

SHADOW: Final = "(shadow)"
"""In place of a split, for what pairs show; the arm is the deployment that got the copies."""

MISSING: Final = "missing."
"""How the metric of pairs begins that could not be compared; the cause follows."""


class Cell(NamedTuple):
    """Where an observation is counted; `minute` of Unix time.

    `arm` is the variant, or `(holdout)` or `(layer)`, or of feedback on a pinned call `(pinned)` and the variant.
    """

    route: str
    minute: int
    split: str
    arm: str
    model: str
    version: str
    metric: str


@dataclass(slots=True)
class Sum:
    """Count, sum and sum of squares of observations."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """One more observation."""
        self.count += 1
        self.total += value
        self.squares += value * value

    def include(self, other: Sum) -> None:
        """The observations of another sum as well."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares


def summed(records: Iterable[CallRecord]) -> dict[Cell, Sum]:
    """What the records add to each metric; keys that are assigned are counted by `units`, apart from this."""
    sums: defaultdict[Cell, Sum] = defaultdict(Sum)
    for record in records:
        if not arm_of(record):
            continue
        place = cell(record, ASSIGNED)[:-1]
        if record.assigned and record.sticky_by == PER_REQUEST:
            sums[Cell(*place, ASSIGNED)].add(1.0)
        if not record.evidence:
            continue
        sums[Cell(*place, ERRORS)].add(float(record.failed))
        if not record.failed:
            sums[Cell(*place, FIRST_TOKEN)].add(record.first_token_s)
            sums[Cell(*place, TOTAL)].add(record.total_s)
            sums[Cell(*place, TOKENS)].add(float(record.completion_tokens))
    return sums


def paired(pairs: Iterable[Pair]) -> dict[Cell, Sum]:
    """What the pairs add to each metric of their shadow. Ratios add up as logarithms, so that their mean is one."""
    sums: dict[Cell, Sum] = {}
    for pair in pairs:
        for metric, value in _figures(pair):
            place = Cell(pair.route, int(pair.at // 60), SHADOW, pair.deployment, pair.deployment, pair.version, metric)
            sums.setdefault(place, Sum()).add(value)
    return sums


def _figures(pair: Pair) -> Iterator[tuple[str, float]]:
    if pair.missing:
        yield MISSING + pair.missing, 1.0
        return
    yield "copy_failed", float(pair.copy_outcome != OK and pair.caller_outcome == OK)
    yield "caller_failed", float(pair.copy_outcome == OK and pair.caller_outcome != OK)
    yield "both_failed", float(pair.copy_outcome != OK and pair.caller_outcome != OK)
    for name in ("exact", "edit_distance", "same_finish"):
        value = getattr(pair, name)
        if value is not None:
            yield name, float(value)
    for name in RATIOS:
        value = getattr(pair, name)
        if value is not None:
            yield name, math.log(value)


def arm_of(record: CallRecord) -> str:
    """The arm that a record counts for; empty for a call that was pinned, which counts for none."""
    if record.held_out:
        return f"({record.held_out})"
    return record.variant if record.assigned else ""


def cell(record: CallRecord, metric: str) -> Cell:
    """Where an observation of the record's call is counted."""
    minute = int(record.at // 60)
    split = digest(record.shares)
    return Cell(record.route, minute, split, arm_of(record), record.model, record.version, metric)


def rated(record: CallRecord, metric: str) -> Cell | None:
    """Where feedback on the answer of the record's call is counted: apart, where the call was pinned.

    None where the call belongs to no variant.
    """
    place = cell(record, FEEDBACK + metric)
    if not place.arm and record.variant:
        return place._replace(arm=PINNED + record.variant)
    return place if place.arm else None


def digest(shares: Shares) -> str:
    """The name of a split in the database; equal splits have equal names, on every machine."""
    return _named(shares)[0]


def written(shares: Shares) -> str:
    """A split as a JSON object of each variant's share."""
    return _named(shares)[1]


@lru_cache(4096)
def _named(shares: Shares) -> tuple[str, str]:
    text = json.dumps({name: round(share, 12) for name, share in shares}, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest(), text
