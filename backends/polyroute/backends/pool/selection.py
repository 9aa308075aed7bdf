"""Which replicas of a pool come into question for an attempt."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from polyroute.backends.pool.breaker import BreakerState
from polyroute.backends.pool.replica import Replica
from polyroute.core.backend import ModelState
from polyroute.core.errors import NoReplica


def best(replicas: Sequence[Replica], tried: Collection[str]) -> list[Replica]:
    """Those among which a policy may choose; none where every breaker is open.

    A breaker is the only thing that forbids a replica; everything else puts it behind others: a replica known to have
    failed, then one that asked to be spared, one that this call has tried, one whose breaker is being tried, one that
    is still loading.
    """
    if len(replicas) == 1:
        replicas[0].observe()
        return [replicas[0]] if replicas[0].breaker.admits() else []
    groups: dict[tuple[bool, bool, bool, bool, int], list[Replica]] = {}
    for replica in replicas:
        state = replica.observe()
        if not replica.breaker.admits():
            continue
        rank = (
            state is ModelState.FAILED,
            replica.paused_s > 0,
            replica.name in tried,
            replica.breaker.state is BreakerState.HALF_OPEN,
            state.readiness,
        )
        groups.setdefault(rank, []).append(replica)
    return groups[min(groups)] if groups else []


def on_trial(replicas: Sequence[Replica]) -> Replica | None:
    """A replica whose half-open breaker waits for a call to try it with.

    It gets the next one, whatever a policy would say: else it might wait for ever behind replicas that are well.
    """
    for replica in replicas:
        if (
            not replica.breaker.closed
            and replica.observe() is ModelState.WARM  # which may half-open it
            and replica.breaker.admits()
            and not replica.paused_s
        ):
            return replica
    return None


def no_replica(name: str, replicas: Sequence[Replica]) -> NoReplica:
    """The error of `replicas` of which no breaker lets a call through; it says when the first one will."""
    soonest = min(replicas, key=lambda replica: replica.breaker.opens_for_s)
    wait_s = soonest.breaker.opens_for_s
    when = f"is tried again in {wait_s:.1f} s" if wait_s else "is being tried"
    return NoReplica(
        f"`{name}`: no healthy replica, 0 of {len(replicas)}; `{soonest.name}` {when}, after {soonest.breaker.why}",
        retry_after_s=wait_s or None,
    )
