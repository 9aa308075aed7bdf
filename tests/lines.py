"""What is logged, with the fields that the thread of a server's log would work out."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from structlog.testing import capture_logs

from polyroute.core.telemetry import LATER


@contextmanager
def captured_lines() -> Iterator[list[MutableMapping[str, Any]]]:
    """As `capture_logs`, whose lines are complete once it is left."""
    with capture_logs() as lines:
        yield lines
    for line in lines:
        if (later := line.pop(LATER, None)) is not None:
            line |= later()
