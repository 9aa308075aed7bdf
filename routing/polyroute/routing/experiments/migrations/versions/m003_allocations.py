"""Shares that follow what is learnt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "003"
down_revision = "002"


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "allocations",
        sa.Column("route", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("identity", "shares")),
        sa.Column("at", sa.Double, nullable=False),
    )
