"""What is written to the state database about experiments: plain functions of a connection in a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, RowMapping, Table, delete, func, select, update

from polyroute.core.errors import InvalidArgument
from polyroute.routing.experiments.evidence import (
    ASSIGNED,
    PER_REQUEST,
    Cell,
    Sum,
    cell,
    digest,
    paired,
    rated,
    summed,
    written,
)
from polyroute.routing.experiments.records import CallRecord
from polyroute.routing.experiments.shadow.pair import Pair
from polyroute.routing.experiments.tables import feedback, hourly_sums, pairs, records, splits, sums, units

FORGET_ROWS: Final = 5_000
"""Most rows that one `forget` removes of a table, so that nobody who writes waits long for it."""

MOST_METRICS: Final = 32
"""Metrics of one request that feedback may be given on."""

SUMS_OUTLIVE: Final = 12
"""Sums by the hour are few: they are kept this many times as long as records."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a caller thought of an answer: a number, or 1 and 0 for yes and no. Times are Unix time."""

    request_id: str
    metric: str
    value: float
    boolean: bool
    observed_at: float
    recorded_at: float


Rating: TypeAlias = tuple[CallRecord, str, float]
"""The record of a call, the metric of feedback on it, and its value."""


def add_records(connection: Connection, batch: Sequence[CallRecord]) -> Sequence[Rating]:
    """Keeps records, sums them up, and joins feedback that came before them, which it returns."""
    shares = {digest(record.shares): written(record.shares) for record in batch}
    _insert(connection, splits, ("split", "shares"), sorted(shares.items()), "ON CONFLICT DO NOTHING")
    _insert(connection, records, (*_FIELDS, "split"), [(*_values(each), digest(each.shares)) for each in batch])
    added = summed(batch)
    for record in _new_units(connection, batch):
        added.setdefault(cell(record, ASSIGNED), Sum()).add(1.0)
    waited = _waiting_feedback(connection, batch)
    for record, row in waited:
        if (place := rated(record, row["metric"])) is not None:
            added.setdefault(place, Sum()).add(row["value"])
    add_sums(connection, added)
    return [(record, row["metric"], row["value"]) for record, row in waited]


def add_pairs(connection: Connection, batch: Sequence[Pair]) -> None:
    """Keeps pairs of calls and copies, and sums them up."""
    _insert(connection, pairs, _PAIR_FIELDS, [_pair_values(pair) for pair in batch])
    add_sums(connection, paired(batch))


def add_feedback(connection: Connection, given: Feedback) -> bool:
    """Keeps feedback, and says whether a record of the request is there.

    The same again changes nothing. Another value takes the place of the first, unless it was observed earlier. Raises
    `InvalidArgument` for more than `MOST_METRICS` metrics of one request.
    """
    place = (feedback.c.request_id == given.request_id, feedback.c.metric == given.metric)
    before = connection.execute(select(feedback).where(*place)).mappings().first()
    if before is None:
        _check_room(connection, given.request_id)
    elif before["observed_at"] > given.observed_at:
        return before["record_id"] is not None
    found = _record_of(connection, given.request_id, None if before is None else before["record_id"])
    values = {
        "value": given.value,
        "boolean": given.boolean,
        "observed_at": given.observed_at,
        "recorded_at": given.recorded_at,
        "record_id": None if found is None else found["id"],
    }
    if before is None:
        connection.execute(feedback.insert().values(request_id=given.request_id, metric=given.metric, **values))
    else:
        connection.execute(update(feedback).where(*place).values(**values))
    if found is None:
        return False
    counted = rated(_read(found), given.metric)
    if counted is not None:
        change = Sum(1, given.value, given.value**2)
        if before is not None and before["record_id"] is not None:
            old = before["value"]
            change = Sum(0, given.value - old, given.value**2 - old**2)
        add_sums(connection, {counted: change})
    return True


def unrated(connection: Connection, given: Feedback) -> CallRecord | None:
    """The record that `given` would be the first feedback on, by its metric; None where there is none."""
    place = (feedback.c.request_id == given.request_id, feedback.c.metric == given.metric)
    if connection.execute(select(feedback.c.request_id).where(*place)).first() is not None:
        return None
    found = _record_of(connection, given.request_id, None)
    return None if found is None else _read(found)


def add_sums(connection: Connection, added: Mapping[Cell, Sum]) -> None:
    """Adds to what is summed up already, by the minute and by the hour.

    Always in one order, so that two routers never wait for each other in a circle.
    """
    if not added:
        return
    hours: dict[Cell, Sum] = {}
    for place, each in added.items():
        hours.setdefault(place._replace(minute=place.minute // 60), Sum()).include(each)
    _add_up(connection, sums, "minute", added)
    _add_up(connection, hourly_sums, "hour", hours)


def forget(connection: Connection, routes: Iterable[str], before: float, sums_before: float) -> bool:
    """Removes what is older than `before` (sums by the hour: `sums_before`), Unix time; says whether more is left."""
    full = False
    for route in sorted(routes):
        old = select(records.c.id).where(records.c.route == route, records.c.at < before).limit(FORGET_ROWS)
        full |= connection.execute(delete(records).where(records.c.id.in_(old))).rowcount >= FORGET_ROWS
        old = select(pairs.c.id).where(pairs.c.route == route, pairs.c.at < before).limit(FORGET_ROWS)
        full |= connection.execute(delete(pairs).where(pairs.c.id.in_(old))).rowcount >= FORGET_ROWS
    connection.execute(delete(feedback).where(feedback.c.recorded_at < before))
    connection.execute(delete(sums).where(sums.c.minute < int(before // 60)))
    connection.execute(delete(hourly_sums).where(hourly_sums.c.hour < int(sums_before // 3600)))
    in_use = select(hourly_sums.c.split).where(hourly_sums.c.hour >= int(before // 3600))
    connection.execute(delete(units).where(units.c.at < before, units.c.split.not_in(in_use)))
    return full


def recorded_routes(connection: Connection) -> list[str]:
    """The routes of which there are records or pairs, found by one step in the index a route."""
    found = set()
    for table in (records, pairs):
        following = select(func.min(table.c.route))
        route = connection.scalar(following)
        while route is not None:
            found.add(route)
            route = connection.scalar(following.where(table.c.route > route))
    return sorted(found)


def _new_units(connection: Connection, batch: Sequence[CallRecord]) -> list[CallRecord]:
    """A record of each key that its split has not seen before."""
    keyed = {
        (record.route, digest(record.shares), record.hash_point): record
        for record in batch
        if record.assigned and record.sticky_by != PER_REQUEST
    }
    if not keyed:
        return []
    rows = [
        (route, split, point, record.at)
        for (route, split, point), record in sorted(keyed.items(), key=lambda item: (*item[0][:2], item[0][2] or 0.0))
    ]
    new: list[CallRecord] = []
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[first : first + _ROWS_AT_ONCE]
        ending = "ON CONFLICT DO NOTHING RETURNING route, split, point"
        statement = _statement(connection, units, ("route", "split", "point", "at"), ending, rows=len(some))
        made = connection.exec_driver_sql(statement, tuple(value for row in some for value in row))
        new += [keyed[route, split, point] for route, split, point in made]
    return new


def _waiting_feedback(connection: Connection, batch: Sequence[CallRecord]) -> list[tuple[CallRecord, RowMapping]]:
    """Feedback that came before the record of its request, which it now belongs to."""
    if connection.execute(_ANY_WAITING).first() is None:
        return []
    by_request = {record.request_id: record for record in batch}
    waiting = (
        connection.execute(
            select(feedback).where(feedback.c.record_id.is_(None), feedback.c.request_id.in_(list(by_request)))
        )
        .mappings()
        .all()
    )
    for row in waiting:
        newest = select(records.c.id).where(records.c.request_id == row["request_id"])
        number = newest.order_by(records.c.id.desc()).limit(1).scalar_subquery()
        place = (feedback.c.request_id == row["request_id"], feedback.c.metric == row["metric"])
        connection.execute(update(feedback).where(*place).values(record_id=number))
    return [(by_request[row["request_id"]], row) for row in waiting]


def _check_room(connection: Connection, request_id: str) -> None:
    told = select(func.count()).select_from(feedback).where(feedback.c.request_id == request_id)
    if (connection.scalar(told) or 0) >= MOST_METRICS:
        raise InvalidArgument("metric", f"the request has feedback on {MOST_METRICS} metrics already, the limit")


def _record_of(connection: Connection, request_id: str, known: int | None) -> RowMapping | None:
    """The record that feedback belongs to: the one it did before, else the latest of the request."""
    query = select(records, splits.c.shares).join(splits, splits.c.split == records.c.split)
    if known is not None:
        return connection.execute(query.where(records.c.id == known)).mappings().first()
    latest = query.where(records.c.request_id == request_id).order_by(records.c.id.desc()).limit(1)
    return connection.execute(latest).mappings().first()


def _add_up(connection: Connection, table: Table, time: str, added: Mapping[Cell, Sum]) -> None:
    """Adds to a table of sums; `time` is its column for what `Cell.minute` holds."""
    key = [time if name == "minute" else name for name in Cell._fields]
    sets = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in _ADDED)
    rows = [
        (*place, each.count, each.total, each.squares)
        for place, each in sorted(added.items(), key=lambda item: item[0])
    ]
    _insert(connection, table, (*key, *_ADDED), rows, f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {sets}")


def _insert(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: list[tuple[Any, ...]], ending: str = ""
) -> None:
    """Inserts rows as the driver takes them: to have SQLAlchemy make parameters of each would be most of the work."""
    connection.exec_driver_sql(_statement(connection, table, columns, ending), rows)


def _statement(connection: Connection, table: Table, columns: tuple[str, ...], ending: str, rows: int = 1) -> str:
    """SQL that both databases know, but for how they mark a parameter."""
    return _written(table.name, columns, ending, rows, "%s" if connection.dialect.name == "postgresql" else "?")


@lru_cache(1024)
def _written(table: str, columns: tuple[str, ...], ending: str, rows: int, mark: str) -> str:
    row = f"({', '.join([mark] * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)} {ending}"  # noqa: S608 - own


def _read(row: RowMapping) -> CallRecord:
    shares = tuple(sorted(json.loads(row["shares"]).items()))
    return CallRecord(shares=shares, **{name: row[name] for name in _FIELDS})


_ANY_WAITING: Final = select(feedback.c.request_id).where(feedback.c.record_id.is_(None)).limit(1)
_ADDED: Final = ("count", "total", "squares")
_ROWS_AT_ONCE: Final = 200  # SQLite may know no more than 999 parameters
_FIELDS: Final = tuple(field.name for field in fields(CallRecord) if field.name != "shares")
_PAIR_FIELDS: Final = tuple(field.name for field in fields(Pair))
_values: Final = attrgetter(*_FIELDS)
_pair_values: Final = attrgetter(*_PAIR_FIELDS)
