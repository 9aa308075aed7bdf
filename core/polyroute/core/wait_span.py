"""The span of a wait, made once it is over: most waits are none, and those leave no span."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from polyroute.core.attributes import OUTCOME
from polyroute.core.errors import Cancelled, PolyrouteError
from polyroute.core.trace import Span, Value

LEAST_S: Final = 0.001
"""A wait of less, in seconds, is none that a trace would show."""


def keep_wait(
    parent: Span, name: str, wait_s: float, attributes: Mapping[str, Value], error: BaseException | None = None
) -> None:
    """A part of `parent` that has just ended after `wait_s` seconds; `error` is what came instead of what was
    waited for."""
    if wait_s < LEAST_S:
        return
    span = parent.child(name, "internal", attributes, begun_ns=time.time_ns() - int(wait_s * 1e9))
    if isinstance(error, PolyrouteError):
        span.failed(error.reason, error.own_message)
    elif error is not None:
        span.attributes[OUTCOME] = Cancelled.reason
    span.end()
