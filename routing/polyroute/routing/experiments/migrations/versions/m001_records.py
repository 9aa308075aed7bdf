"""Records of calls, what is summed up of them, and feedback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "records",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("request_id", "pair_id", "route", "variant")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("model", "version", "answered_by", "held_out")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("split", "sticky_by")),
        sa.Column("hash_point", sa.Double),
        sa.Column("probability", sa.Double),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("fault", sa.Text, nullable=False),
        sa.Column("own_deadline", sa.Boolean, nullable=False),
        sa.Column("cache", sa.Text, nullable=False),
        sa.Column("finish_reason", sa.Text, nullable=False),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("queue_s", "first_token_s", "total_s")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("prompt_tokens", "completion_tokens")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("prompt", "answer")),
    )
    op.create_index("records_by_request", "records", ["request_id"])
    op.create_index("records_by_route", "records", ["route", "at"])
    op.create_table(
        "splits",
        sa.Column("split", sa.Text, primary_key=True),
        sa.Column("shares", sa.Text, nullable=False),
    )
    op.create_table(
        "units",
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("split", sa.Text, nullable=False),
        sa.Column("point", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("route", "split", "point"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sums",
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("minute", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("split", "arm", "model", "version", "metric")),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Double, nullable=False),
        sa.Column("squares", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("route", "minute", "split", "arm", "model", "version", "metric"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "feedback",
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("boolean", sa.Boolean, nullable=False),
        sa.Column("observed_at", sa.Double, nullable=False),
        sa.Column("recorded_at", sa.Double, nullable=False),
        sa.Column("record_id", sa.BigInteger),
        sa.PrimaryKeyConstraint("request_id", "metric"),
    )
    unjoined = sa.text("record_id IS NULL")
    op.create_index("feedback_unjoined", "feedback", ["request_id"], sqlite_where=unjoined, postgresql_where=unjoined)
    op.create_index("feedback_by_age", "feedback", ["recorded_at"])
