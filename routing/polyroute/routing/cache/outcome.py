"""What the failure of a shared run means for those who follow it: pure decisions by the error."""

from __future__ import annotations

from typing import Final

from polyroute.core.errors import PolyrouteError
from polyroute.routing.permits import REFUSAL, Refusal

_REFUSALS: Final = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"})
_FAILURES: Final = frozenset({500, 502, 503, 504})
_OWN: Final = frozenset({Refusal.QUEUE_FULL, Refusal.PUSHED_OUT, Refusal.DEADLINE_TOO_NEAR, Refusal.DEADLINE})


def is_refusal(error: BaseException | None) -> bool:
    """Whether the request itself was refused, so that an equal one would be as well."""
    return isinstance(error, PolyrouteError) and error.grpc in _REFUSALS


def is_own(error: BaseException | None) -> bool:
    """Whether it failed by what whoever began the run has of its own: its deadline, its share of the queue."""
    return isinstance(error, PolyrouteError) and error.metadata.get(REFUSAL) in _OWN


def is_failure(error: PolyrouteError) -> bool:
    """Whether a stale answer may be given in its place (RFC 5861, section 4: 500, 502, 503 and 504)."""
    return error.http in _FAILURES
