"""Reads what is summed up of a route, all at once and over time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, func, literal, select

from polyroute.routing.experiments.evidence import SHADOW, Sum
from polyroute.routing.experiments.tables import pairs, splits, sums

WORST: Final = 20
"""Pairs that a report names as the worst, at most."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The observations of one metric of one arm under one split; `last` is when one was made, to the minute.

    `until` is the end of the stretch of time that they are of, in Unix time, where there are several.
    """

    split: str
    arm: str
    model: str
    version: str
    metric: str
    sum: Sum
    last: float = 0.0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Worst:
    """One of the pairs of a shadow whose texts are farthest apart."""

    deployment: str
    pair_id: str
    request_id: str
    edit_distance: float


@dataclass(frozen=True, slots=True)
class Tally:
    """Everything summed up of a route. `shares` has each split's, by variant; `over_time` is empty unless asked for.

    `shadows` are what pairs show, `worst` the worst of them.
    """

    entries: Sequence[Entry] = ()
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    over_time: Sequence[Entry] = ()
    shadows: Sequence[Entry] = ()
    worst: Sequence[Worst] = ()


def tally(connection: Connection, route: str, since: float, points: int = 0) -> Tally:
    """What there is of `route` from the minute of `since` (Unix time) on; over time in `points` stretches at most."""
    where = (sums.c.route == route, sums.c.minute >= int(since // 60))
    found = connection.execute(_summed(None).where(*where)).all()
    everything = [_entry(row) for row in found]
    entries = [entry for entry in everything if entry.split != SHADOW]
    shadows = [entry for entry in everything if entry.split == SHADOW]
    names = {entry.split for entry in entries}
    rows = connection.execute(select(splits.c.split, splits.c.shares).where(splits.c.split.in_(names)))
    shares = {name: json.loads(text) for name, text in rows}
    over_time: list[Entry] = []
    if points and entries:
        first = connection.scalar(select(func.min(sums.c.minute)).where(*where)) or 0
        last = int(max(entry.last for entry in entries)) // 60
        step = (last - first) // points + 1
        for row in connection.execute(_summed((sums.c.minute - first) // step).where(*where)):
            until = (first + (int(row[0]) + 1) * step) * 60.0
            if row[1] != SHADOW:
                over_time.append(_entry(row, until))
        over_time.sort(key=lambda entry: entry.until)
    return Tally(entries, shares, over_time, shadows, _worst(connection, route, since) if shadows else ())


def _worst(connection: Connection, route: str, since: float) -> list[Worst]:
    """The pairs that are farthest apart, of all shadows together."""
    c = pairs.c
    query = select(c.deployment, c.pair_id, c.request_id, c.edit_distance)
    query = query.where(c.route == route, c.at >= since, c.edit_distance > 0)
    rows = connection.execute(query.order_by(c.edit_distance.desc(), c.id.desc()).limit(WORST))
    return [Worst(*row) for row in rows]


def _summed(stretch: ColumnElement[int] | None) -> Select[Any]:
    """Sums by arm and metric; by `stretch` of time as well, which is the first column."""
    cells = (sums.c.split, sums.c.arm, sums.c.model, sums.c.version, sums.c.metric)
    added = (func.sum(sums.c.count), func.sum(sums.c.total), func.sum(sums.c.squares), func.max(sums.c.minute))
    if stretch is None:
        return select(literal(0), *cells, *added).group_by(*cells)
    return select(stretch.label("stretch"), *cells, *added).group_by("stretch", *cells)


def _entry(row: Sequence[Any], until: float = 0.0) -> Entry:
    _stretch, split, arm, model, version, metric, count, total, squares, minute = row
    summed = Sum(int(count), float(total), float(squares))  # Postgres adds up into decimals
    return Entry(split, arm, model, version, metric, summed, last=minute * 60.0, until=until)
