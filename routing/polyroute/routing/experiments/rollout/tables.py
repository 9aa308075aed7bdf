"""The tables of rollouts in the state database; `polyroute.routing.experiments.migrations` makes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, PrimaryKeyConstraint, Table, Text

from polyroute.routing.experiments.tables import Id, metadata

rollouts = Table(
    "rollouts",
    metadata,
    Column("route", Text, primary_key=True),
    Column("identity", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("step", Integer, nullable=False),
    Column("since", Double, nullable=False),
    Column("samples", BigInteger, nullable=False),
    Column("weight", Double, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("controller", Text, nullable=False),
    Column("until", Double, nullable=False),
)
"""Where each route's rollout stands; `controller` is the router that decides, which it may until `until`.

`identity` says which rollout of the route it is, and `revision` counts its changes.
"""

rollout_evidence = Table(
    "rollout_evidence",
    metadata,
    Column("route", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("router", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    PrimaryKeyConstraint("route", "identity", "router"),
)
"""What each router has seen of a rollout: the sum of its rows is all that is known."""

rollout_transitions = Table(
    "rollout_transitions",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("route", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("from_state", Text, nullable=False),
    Column("to_state", Text, nullable=False),
    Column("step", Integer, nullable=False),
    Column("weight", Double, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Index("rollout_transitions_by_route", "route", "id"),
)
"""Every change of a rollout, with the evidence that there was then. Kept for good."""
