"""The right to occupy a deployment: a bounded number of permits, and a bounded queue for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from polyroute.core.errors import DeadlineExceeded, Overloaded

_WEIGHT = 0.2
_RETRY_RANGE_S = (0.1, 60.0)


class Permit:
    """Held by one call from before the backend is asked until its stream closes."""

    __slots__ = ("_held", "_permits", "_since")

    def __init__(self, permits: Permits, since: float) -> None:
        self._permits = permits
        self._since = since
        self._held = True

    def release(self) -> None:
        """Gives it back, to the next in the queue if there is one. May be called twice; never waits."""
        if self._held:
            self._held = False
            self._permits._returned(self._since)


class Permits:
    """`max_concurrency` permits of one deployment, first come first served; `max_queue` calls may wait.

    A `max_concurrency` that may change is a function; it counts from the next call that comes or ends. Times are in
    seconds. `name` is the deployment's, for messages.
    """

    def __init__(
        self,
        name: str,
        max_concurrency: int | Callable[[], int],
        max_queue: int,
        queue_timeout_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._clock = clock
        self._in_flight = 0
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._service_s: float | None = None
        self.limit(max_concurrency, max_queue, queue_timeout_s)

    def limit(self, max_concurrency: int | Callable[[], int], max_queue: int, queue_timeout_s: float) -> None:
        """Sets the limits, for calls that hold a permit or wait for one too.

        Of more permits the next in the queue have theirs at once; with fewer, nobody gets one until enough are back.
        Who waits already keeps its place and its timeout.
        """
        self._max_concurrency = max_concurrency
        self.max_queue = max_queue
        self.queue_timeout_s = queue_timeout_s
        self._wake()

    def __repr__(self) -> str:
        return f"<Permits {self.name}: {self._in_flight}/{self.max_concurrency}, {self.queued} waiting>"

    @property
    def max_concurrency(self) -> int:
        """How many permits there are."""
        most = self._max_concurrency
        return most if isinstance(most, int) else most()

    @property
    def in_flight(self) -> int:
        """Permits held."""
        return self._in_flight

    @property
    def queued(self) -> int:
        """Calls waiting for a permit."""
        return len(self._waiters)

    @property
    def retry_after_s(self) -> float:
        """When a place is likely to be free, from how long calls have been taking; between 0.1 and 60 s."""
        if self._service_s is None:
            return 1.0
        estimate = self._service_s * (self.queued + 1) / self.max_concurrency
        return min(max(estimate, _RETRY_RANGE_S[0]), _RETRY_RANGE_S[1])

    async def acquire(self, deadline: float | None = None) -> Permit:
        """Waits for a permit until the queue's timeout or `deadline` (on the clock of `time.monotonic`).

        Raises `Overloaded` when the queue is full or the wait too long, `DeadlineExceeded` at the deadline.
        """
        if self._in_flight < self.max_concurrency and not self._waiters:
            self._in_flight += 1
            return Permit(self, self._clock())
        if self.queued >= self.max_queue:
            raise Overloaded(self._full(), retry_after_s=self.retry_after_s)
        await self._wait(deadline)
        return Permit(self, self._clock())

    async def _wait(self, deadline: float | None) -> None:
        begun = self._clock()
        left = None if deadline is None else deadline - begun
        hurried = left is not None and left < self.queue_timeout_s
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[turn] = None
        try:
            async with asyncio.timeout(left if hurried else self.queue_timeout_s):
                await turn
        except TimeoutError:
            if _handed(turn):
                return
            waited = self._clock() - begun
            if hurried:
                raise DeadlineExceeded(
                    f"`{self.name}`: the deadline passed in the queue, after {waited:.1f} s"
                ) from None
            raise Overloaded(
                f"`{self.name}`: no permit within {self.queue_timeout_s:g} s, "
                f"{self._in_flight} of {self.max_concurrency} in use",
                retry_after_s=self.retry_after_s,
            ) from None
        except BaseException:
            if _handed(turn):  # cancelled in the same moment: the permit goes on to the next
                self._in_flight -= 1
                self._wake()
            raise
        finally:
            self._waiters.pop(turn, None)

    def _full(self) -> str:
        if self.max_queue == 0:
            return f"`{self.name}`: {self._in_flight} of {self.max_concurrency} permits in use, and no queue"
        return f"`{self.name}`: {self.queued} waiting, limit {self.max_queue}"

    def _returned(self, since: float) -> None:
        held_s = self._clock() - since
        self._service_s = held_s if self._service_s is None else self._service_s + _WEIGHT * (held_s - self._service_s)
        self._in_flight -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiters and self._in_flight < self.max_concurrency:
            turn = next(iter(self._waiters))
            del self._waiters[turn]
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)


def _handed(turn: asyncio.Future[None]) -> bool:
    return turn.done() and not turn.cancelled()
