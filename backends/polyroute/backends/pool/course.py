"""What one call has gone through in a pool until now."""

from __future__ import annotations

from msgspec.structs import replace

from polyroute.backends.pool.attempt import Try
from polyroute.core.call import Call
from polyroute.core.errors import PolyrouteError
from polyroute.core.event import Attempt, Event, Started


class Course:
    """The replicas that a call was sent to, the attempts that failed, and how often it was tried again."""

    __slots__ = ("call", "failed", "notes", "retries", "tried")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.tried: set[str] = set()
        self.failed: list[Attempt] = []
        self.retries = 0
        self.notes: list[str] = []
        """What else the caller should know of how it was answered, in words."""

    def __repr__(self) -> str:
        return f"<Course {self.call.request_id} tried={sorted(self.tried)} failed={len(self.failed)}>"

    def lost(self, attempt: Try, error: BaseException) -> None:
        """One attempt has failed."""
        if isinstance(error, PolyrouteError):
            self.failed.append(attempt.told(error))

    def told(self, event: Event, attempt: Try) -> Event:
        """The answer's first event with the attempts that failed before, and why this replica answers."""
        if not isinstance(event, Started) or not (self.failed or self.notes or attempt.why):
            return event
        reasons = (*(f"`{a.replica}` failed: {a.reason}" for a in self.failed), *self.notes, attempt.why)
        route = event.route
        return Started(replace(route, attempts=tuple(self.failed), reasons=(*filter(None, reasons), *route.reasons)))
