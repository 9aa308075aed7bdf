"""What panels of several dashboards ask of replicas."""

from __future__ import annotations

from typing import Final

from deploy.dashboards.panels import rate
from deploy.faults import faults

OF: Final = "deployment, replica"
"""The labels that name a replica: one peer may serve several models."""

FIRST: Final = "polyroute_replica_first_token_seconds"


def failing(where: str = "") -> str:
    """The share of each replica's attempts that failed by its own fault; nothing of those without any."""
    ill = ", ".join(filter(None, (where, f'outcome=~"{faults()}"')))
    attempts = "polyroute_replica_attempts_total"
    return f"{rate(attempts, OF, ill)} / {rate(attempts, OF, where)}"
