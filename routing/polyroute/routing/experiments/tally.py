"""Reads what is summed up of a route, all at once and over time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, Table, func, literal, select

from polyroute.routing.experiments.evidence import SHADOW, Sum
from polyroute.routing.experiments.tables import hourly_sums, pairs, splits, sums

WORST: Final = 20
"""Pairs that a report names as the worst, at most."""

MOST_SHOWN: Final = 2_000
"""Characters that a report has of each text of such a pair."""

BY_MINUTE_H: Final = 48
"""Hours that are read by the minute."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The observations of one metric of one arm under one split; `last` is when one was made, about.

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
    """One of the pairs of a shadow whose texts are farthest apart.

    The texts, cut to `MOST_SHOWN`, are empty unless the route recorded content.
    """

    deployment: str
    pair_id: str
    request_id: str
    edit_distance: float
    prompt: str = ""
    caller_text: str = ""
    copy_text: str = ""


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
    """What there is of `route` from `since` on (Unix time), over time in `points` stretches at most.

    It is read by the minute, or by the hour where it covers more than `BY_MINUTE_H` hours.
    """
    c = hourly_sums.c
    known = (c.route == route, c.hour >= int(since // 3600))
    first, last = connection.execute(select(func.min(c.hour), func.max(c.hour)).where(*known)).one()
    if first is None:
        return Tally()
    scale = _HOURS if last - first > BY_MINUTE_H else _MINUTES
    where = (scale.table.c.route == route, scale.time >= int(since // scale.seconds))
    everything = [_entry(row, scale) for row in connection.execute(_summed(scale, None).where(*where))]
    entries = [entry for entry in everything if entry.split != SHADOW]
    shadows = [entry for entry in everything if entry.split == SHADOW]
    names = {entry.split for entry in entries}
    rows = connection.execute(select(splits.c.split, splits.c.shares).where(splits.c.split.in_(names)))
    shares = {name: json.loads(text) for name, text in rows}
    over_time = _over_time(connection, scale, where, points) if points and entries else []
    return Tally(entries, shares, over_time, shadows, _worst(connection, route, since) if shadows else ())


@dataclass(frozen=True, slots=True)
class _Scale:
    """One of the tables of sums: how long the stretches are that it knows, and where it has them."""

    table: Table
    time: ColumnElement[int]
    seconds: int


_MINUTES: Final = _Scale(sums, sums.c.minute, 60)
_HOURS: Final = _Scale(hourly_sums, hourly_sums.c.hour, 3600)


def _over_time(
    connection: Connection, scale: _Scale, where: tuple[ColumnElement[bool], ...], points: int
) -> list[Entry]:
    first, last = connection.execute(select(func.min(scale.time), func.max(scale.time)).where(*where)).one()
    step = (last - first) // points + 1
    found = []
    for row in connection.execute(_summed(scale, (scale.time - first) // step).where(*where)):
        if row[1] != SHADOW:
            until = min(first + (int(row[0]) + 1) * step, last + 1) * float(scale.seconds)
            found.append(_entry(row, scale, until))
    return sorted(found, key=lambda entry: entry.until)


def _worst(connection: Connection, route: str, since: float) -> list[Worst]:
    """The pairs that are farthest apart, of all shadows together."""
    c = pairs.c
    texts = (func.substr(text, 1, MOST_SHOWN) for text in (c.prompt, c.caller_text, c.copy_text))
    query = select(c.deployment, c.pair_id, c.request_id, c.edit_distance, *texts)
    query = query.where(c.route == route, c.at >= since, c.edit_distance > 0)
    rows = connection.execute(query.order_by(c.edit_distance.desc(), c.id.desc()).limit(WORST))
    return [Worst(*row) for row in rows]


def _summed(scale: _Scale, stretch: ColumnElement[int] | None) -> Select[Any]:
    """Sums by arm and metric; by `stretch` of time as well, which is the first column."""
    c = scale.table.c
    cells = (c.split, c.arm, c.model, c.version, c.metric)
    added = (func.sum(c.count), func.sum(c.total), func.sum(c.squares), func.max(scale.time))
    if stretch is None:
        return select(literal(0), *cells, *added).group_by(*cells)
    return select(stretch.label("stretch"), *cells, *added).group_by("stretch", *cells)


def _entry(row: Sequence[Any], scale: _Scale, until: float = 0.0) -> Entry:
    _stretch, split, arm, model, version, metric, count, total, squares, time = row
    summed = Sum(int(count), float(total), float(squares))  # Postgres adds up into decimals
    return Entry(split, arm, model, version, metric, summed, last=time * float(scale.seconds), until=until)
