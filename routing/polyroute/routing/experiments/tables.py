"""The tables of the state database, as SQLAlchemy Core knows them; `migrations` makes them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

metadata = MetaData()

Id = BigInteger().with_variant(Integer, "sqlite")
"""A row's number: SQLite counts up an INTEGER alone."""

_UNJOINED = text("record_id IS NULL")

records = Table(
    "records",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("pair_id", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("answered_by", Text, nullable=False),
    Column("held_out", Text, nullable=False),
    Column("split", Text, nullable=False),
    Column("sticky_by", Text, nullable=False),
    Column("hash_point", Double),
    Column("probability", Double),
    Column("outcome", Text, nullable=False),
    Column("fault", Text, nullable=False),
    Column("own_deadline", Boolean, nullable=False),
    Column("cache", Text, nullable=False),
    Column("finish_reason", Text, nullable=False),
    Column("queue_s", Double, nullable=False),
    Column("first_token_s", Double, nullable=False),
    Column("total_s", Double, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Index("records_by_request", "request_id"),
    Index("records_by_route", "route", "at"),
)
"""One row a call: `polyroute.routing.experiments.records.CallRecord`."""

splits = Table(
    "splits",
    metadata,
    Column("split", Text, primary_key=True),
    Column("shares", Text, nullable=False),
)
"""How traffic was divided, by the digest that other tables name it by: a JSON object of each variant's share."""

units = Table(
    "units",
    metadata,
    Column("route", Text, nullable=False),
    Column("split", Text, nullable=False),
    Column("point", Double, nullable=False),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("route", "split", "point"),
    sqlite_with_rowid=False,
)
"""Each key that was assigned under a split, once however many calls it made: `point` is its hash point."""


def _sums(name: str, since: str) -> Table:
    """Sums over the time that begins at `since`, in Unix time by its own unit."""
    return Table(
        name,
        metadata,
        Column("route", Text, nullable=False),
        Column(since, BigInteger, nullable=False),
        Column("split", Text, nullable=False),
        Column("arm", Text, nullable=False),
        Column("model", Text, nullable=False),
        Column("version", Text, nullable=False),
        Column("metric", Text, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("total", Double, nullable=False),
        Column("squares", Double, nullable=False),
        PrimaryKeyConstraint("route", since, "split", "arm", "model", "version", "metric"),
        sqlite_with_rowid=False,
    )


sums = _sums("sums", "minute")
"""What a report reads: count, sum and sum of squares of a metric, by arm and minute of Unix time."""

hourly_sums = _sums("hourly_sums", "hour")
"""The same by the hour: it is kept for longer, and reports over long times read it."""

pairs = Table(
    "pairs",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("pair_id", "request_id", "route", "deployment", "version")),
    *(Column(name, Text, nullable=False) for name in ("missing", "caller_outcome", "copy_outcome")),
    *(Column(name, Boolean) for name in ("exact", "same_finish")),
    *(Column(name, Double) for name in ("edit_distance", "length_ratio", "first_token_ratio", "total_ratio")),
    *(Column(name, Text, nullable=False) for name in ("prompt", "caller_text", "copy_text")),
    Index("pairs_by_age", "route", "at"),
    Index("pairs_by_distance", "route", "edit_distance"),
)
"""One row a copy of a call: `polyroute.routing.experiments.shadow.pair.Pair`."""

feedback = Table(
    "feedback",
    metadata,
    Column("request_id", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("value", Double, nullable=False),
    Column("boolean", Boolean, nullable=False),
    Column("observed_at", Double, nullable=False),
    Column("recorded_at", Double, nullable=False),
    Column("record_id", BigInteger),
    PrimaryKeyConstraint("request_id", "metric"),
    Index("feedback_unjoined", "request_id", sqlite_where=_UNJOINED, postgresql_where=_UNJOINED),
    Index("feedback_by_age", "recorded_at"),
)
"""What callers thought of answers; `record_id` is the record that one belongs to, once there is one."""
