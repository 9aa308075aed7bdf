"""Rollouts: where they stand, what is known of their versions, and every change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "002"
down_revision = "001"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "rollouts",
        sa.Column("route", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("identity", "state")),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("samples", sa.BigInteger, nullable=False),
        sa.Column("weight", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("controller", sa.Text, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
    )
    op.create_table(
        "rollout_evidence",
        *(sa.Column(name, sa.Text, nullable=False) for name in ("route", "identity", "router", "evidence")),
        sa.PrimaryKeyConstraint("route", "identity", "router"),
    )
    op.create_table(
        "rollout_transitions",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("route", "identity")),
        sa.Column("at", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("from_state", "to_state")),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("weight", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("reason", "actor", "evidence")),
    )
    op.create_index("rollout_transitions_by_route", "rollout_transitions", ["route", "id"])
