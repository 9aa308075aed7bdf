"""Takes what callers thought of answers, by gRPC and REST alike."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from typing import Final

from polyroute.core.config import FEEDBACK_METRIC
from polyroute.core.errors import InvalidArgument, Unimplemented, clip
from polyroute.core.validate import check_request_id
from polyroute.routing.experiments.journal import Journal
from polyroute.routing.experiments.store import Feedback

LARGEST: Final = 1e12
"""Largest number that is an observation, either way: sums of squares stay exact enough."""

_METRIC: Final = re.compile(FEEDBACK_METRIC)
_AHEAD_S: Final = 60.0  # clocks differ


class FeedbackIntake:
    """Checks feedback and hands it to the journal. `now` gives Unix time in seconds."""

    def __init__(self, journal: Journal | None, *, now: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._now = now

    async def take(self, request_id: str, metric: str, value: bool | float, observed: float | None) -> bool:
        """Keeps one observation, made at `observed` in Unix time (None: now); says whether its request is known.

        Raises `InvalidArgument`, `StateUnavailable`, and `Unimplemented` where the server keeps no state.
        """
        now = self._now()
        if not request_id:
            raise InvalidArgument("request_id", "is empty; give that of the answer")
        check_request_id(request_id)
        if not _METRIC.fullmatch(metric):
            shown = clip(metric, 80)
            raise InvalidArgument("metric", f"`{shown}`; must be 1 to 64 letters, digits, `_`, `.` and `-`")
        if not math.isfinite(value) or abs(value) > LARGEST:
            raise InvalidArgument("value", f"{value:g}; must be a number from -{LARGEST:g} to {LARGEST:g}")
        if observed is not None and not 0 <= observed <= now + _AHEAD_S:
            raise InvalidArgument("observed", "is before 1970 or in the future")
        if self._journal is None:
            raise Unimplemented("feedback: this server keeps no records of experiments")
        at = now if observed is None else observed
        return await self._journal.feedback(
            Feedback(request_id, metric, float(value), isinstance(value, bool), at, now)
        )
