"""Sums by the hour, so that a report over months reads little."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "005"
down_revision = "004"

_NAMES = ("split", "arm", "model", "version", "metric")


def upgrade() -> None:
    """Makes the table, and fills it with what there is by the minute."""
    op.create_table(
        "hourly_sums",
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("hour", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in _NAMES),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Double, nullable=False),
        sa.Column("squares", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("route", "hour", *_NAMES),
        sqlite_with_rowid=False,
    )
    cells = ", ".join(_NAMES)
    op.execute(
        f"INSERT INTO hourly_sums (route, hour, {cells}, count, total, squares) "  # noqa: S608 - names of our own
        f"SELECT route, minute / 60, {cells}, SUM(count), SUM(total), SUM(squares) FROM sums "
        f"GROUP BY route, minute / 60, {cells}"
    )
