"""What an attempt's error says: of the replica, and of whether trying again makes sense."""

from __future__ import annotations

from typing import Final

from polyroute.core.errors import (
    FirstTokenTimeout,
    InvalidArgument,
    Overloaded,
    PeerFailed,
    PeerUnreachable,
    PolyrouteError,
    Unavailable,
    WorkerDied,
)

LONGEST_PAUSE_S: Final = 300.0
"""Longest time for which a replica is put behind others because it asked to be spared, in seconds: what a peer has said
once may be long out of date."""


def is_replicas_fault(error: PolyrouteError) -> bool:
    """Whether the replica is ill, as far as one error tells.

    Not what the caller did (a bad field, its deadline), not a replica that is busy (429) or on its way (loading,
    draining): each of those is an answer of one that works. Nor a worker that died, however many calls it took with it:
    its state says that it is gone, and what comes back under its name is another process.
    """
    return isinstance(error, PeerUnreachable | PeerFailed | FirstTokenTimeout) or _is_refusal(error)


def another_may_answer(error: PolyrouteError) -> bool:
    """Whether another replica of the same model may do better.

    A request that one refuses, all refuse; and one that killed a worker could kill them all. Who knows when a worker
    is back may make the call once more (`Pool.may_repeat`).
    """
    return error.try_next and not isinstance(error, InvalidArgument | WorkerDied)


def same_may_answer(error: PolyrouteError) -> bool:
    """Whether the same replica may do better in a moment: what it failed with passes as a rule, and soon."""
    return isinstance(error, PeerUnreachable | PeerFailed | Overloaded) or _is_refusal(error)


def pause_s(error: PolyrouteError) -> float:
    """For how long the replica is spared, in seconds: `Retry-After` of a 429 or 503, `LONGEST_PAUSE_S` at most."""
    asked_s = (error.retry_after_s or 0.0) if isinstance(error, Overloaded) or _is_refusal(error) else 0.0
    return min(asked_s, LONGEST_PAUSE_S)


def _is_refusal(error: PolyrouteError) -> bool:
    """A plain 503; what is more particular (loading, draining) is an error of its own below that class."""
    return type(error) is Unavailable
