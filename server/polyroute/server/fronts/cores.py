"""Which core a front has to itself: its threads hand the interpreter to each other, which costs more between cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

import structlog

log = structlog.get_logger(__name__)


def usable() -> frozenset[int]:
    """The cores that this process may use; none where the system does not say."""
    return frozenset(os.sched_getaffinity(0)) if sys.platform == "linux" else frozenset()


def own_core(number: int, fronts: int, cores: Collection[int]) -> int | None:
    """The core of front `number` of so many; None where there is not exactly one core for each.

    With cores to spare the system knows better where there is room, and with fewer, fronts have to share.
    """
    return sorted(cores)[number] if len(cores) == fronts else None


def keep_to(core: int) -> None:
    """Has this thread, and all that it starts, run on one core; left as it is where the system refuses that."""
    if sys.platform == "linux":
        try:
            os.sched_setaffinity(0, {core})
        except OSError as error:  # it may be used no longer
            log.warning("front.not_kept_to_core", core=core, error=str(error), effect="it runs on any core")
