"""One call that follows a run which equal calls share, and what it is told where that run fails."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from polyroute.core.errors import Cancelled, DeadlineExceeded, PolyrouteError

if TYPE_CHECKING:  # which follows from here
    from polyroute.routing.cache.flights import Flight

T = TypeVar("T")


class RunFailed(Exception):
    """The run has failed before this follower had anything of it, so the follower may do otherwise; see `__cause__`."""


def own(failure: BaseException | None, *, led: bool) -> Exception:
    """The failure of a run as an error of one follower's own; `led` is whether the run was begun for it."""
    if isinstance(failure, PolyrouteError):
        error = failure.after(failure.attempts, failure.message)
        error.shared = not led
        return error
    return RuntimeError("the run crashed")


class Follower(Generic[T]):
    """One call that follows a flight, at its own pace and until its own deadline. To be left, however it ends.

    `deadline` is on the clock of `time.monotonic`, in seconds.
    """

    __slots__ = ("_flight", "_late", "_timer", "cut", "deadline", "led", "place", "waited_s", "waiting")

    def __init__(self, flight: Flight[T], deadline: float | None, *, led: bool) -> None:
        self._flight = flight
        self.deadline = deadline
        self.led = led
        """Whether the run was begun for it."""
        self.place = 0
        """Items that it has taken."""
        self.waited_s = 0.0
        """How long one that has joined has waited for items, in seconds."""
        self.cut = False
        """Whether the flight has gone on without it."""
        self.waiting: asyncio.Future[None] | None = None
        """Ends once there is something new to see; None where it does not wait, or has been woken."""
        self._late = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has the last item."""
        return self._flight.complete and self.place == self._flight.end

    def at_hand(self) -> T | None:
        """The next item where it is there already, without a wait. Raises as `next`, but for the deadline."""
        flight, place = self._flight, self.place
        if flight.failure is not None and (place == 0 or place == flight.end):
            raise flight.failed(self)
        if self.cut:
            raise Cancelled(f"`{flight.name}`: left unread until {flight.most_bytes} bytes behind the shared run")
        ahead = place - flight.first
        if ahead == len(flight.items):
            return None
        self.place = place + 1
        if flight.room is not None:
            flight.taken()
        return flight.items[ahead]

    async def next(self) -> T | None:
        """The next item; None after the last.

        Raises `RunFailed` where the run failed and nothing was taken yet, else what it failed with; `DeadlineExceeded`
        at the deadline, and `Cancelled` where the others could not wait for this one any longer.
        """
        while (item := self.at_hand()) is None and not self._flight.complete:
            await self.news()
        return item

    async def news(self) -> None:
        """Returns once there may be something new at hand; raises `DeadlineExceeded` at the deadline."""
        if self._late:
            name = self._flight.name
            raise DeadlineExceeded(f"`{name}`: the caller's deadline passed before the answer was complete")
        loop = asyncio.get_running_loop()
        if self.deadline is not None and self._timer is None:
            self._timer = loop.call_later(max(0.0, self.deadline - time.monotonic()), self._pass)
        self.waiting = waiting = loop.create_future()
        begun = 0.0 if self.led else time.monotonic()
        try:
            await waiting
        finally:
            self.waiting = None
            if not self.led:
                self.waited_s += time.monotonic() - begun

    def wake(self) -> None:
        """There is something new to see, if it is waiting."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _pass(self) -> None:
        self._late = True
        self.wake()

    async def leave(self) -> None:
        """Follows no longer. Whoever leaves last ends a run that is not complete, and returns once it has ended. A run
        of one's own is waited for when it is complete, too."""
        if self._timer is not None:
            self._timer.cancel()
        if self._flight.leave(self):
            await asyncio.wait({self._flight.task})
