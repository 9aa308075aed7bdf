"""Pairs of calls and their copies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "004"
down_revision = "003"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "pairs",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("pair_id", "request_id", "route", "deployment")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("version", "missing", "caller_outcome")),
        sa.Column("copy_outcome", sa.Text, nullable=False),
        *(sa.Column(name, sa.Boolean) for name in ("exact", "same_finish")),
        *(sa.Column(name, sa.Double) for name in ("edit_distance", "length_ratio")),
        *(sa.Column(name, sa.Double) for name in ("first_token_ratio", "total_ratio")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("prompt", "caller_text", "copy_text")),
    )
    op.create_index("pairs_by_age", "pairs", ["route", "at"])
    op.create_index("pairs_by_distance", "pairs", ["route", "edit_distance"])
