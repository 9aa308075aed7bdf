"""Errors on their way from one process to another: what is raised there is raised here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog

from polyroute.core import errors
from polyroute.core.errors import Internal, PolyrouteError
from polyroute.server.fronts.messages.asked import Failed

_ALWAYS: Final = ("message", "retry_after_s", "metadata", "attempts", "quoted", "shared")

log = structlog.get_logger(__name__)


def failed(id: int, error: BaseException, request_id: str = "") -> Failed:
    """The error as a message. One that is none of `core.errors` is our bug: it is logged, and nobody else learns it."""
    if not isinstance(error, PolyrouteError):
        log.error("front.request_failed", request_id=request_id, exc_info=error)
        error = Internal(request_id)
    return Failed(
        id,
        type(error).__name__,
        error.message,
        error.retry_after_s,
        error.metadata,
        error.attempts,
        error.quoted,
        error.shared,
        {name: value for name, value in vars(error).items() if name not in _ALWAYS},
    )


def raised(failure: Failed) -> PolyrouteError:
    """The error that a message tells of."""
    found = getattr(errors, failure.kind, PolyrouteError)
    error: PolyrouteError = found.__new__(found, failure.message)
    error.args = (failure.message,)
    told: Mapping[str, Any] = {
        "message": failure.message,
        "retry_after_s": failure.retry_after_s,
        "metadata": dict(failure.metadata),
        "attempts": failure.attempts,
        "quoted": failure.quoted,
        "shared": failure.shared,
    }
    more = {name: tuple(value) if isinstance(value, list) else value for name, value in failure.more.items()}
    vars(error).update(told, **more)
    return error
