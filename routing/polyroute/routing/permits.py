"""The right to occupy a deployment: a bounded number of permits, and a bounded, fair queue for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from polyroute.core.errors import DeadlineExceeded, Overloaded, PolyrouteError
from polyroute.routing.adaptive import AdaptiveLimit
from polyroute.routing.fair_queue import FairQueue
from polyroute.routing.pace import Pace

REFUSAL: Final = "refusal"
"""Key in an error's `metadata`, so in `google.rpc.ErrorInfo` too, that says which `Refusal` it was."""

_RETRY_RANGE_S: Final = (0.1, 60.0)
_LOOK_S: Final = 0.1


class Refusal(StrEnum):
    """Why a call got no permit."""

    QUEUE_FULL = "queue_full"
    PUSHED_OUT = "pushed_out"
    QUEUE_TIMEOUT = "queue_timeout"
    DEADLINE_TOO_NEAR = "deadline_too_near"
    DEADLINE = "deadline"


class Source(Protocol):
    """Where a permit comes from, and what is told of it; times are on the clock of `time.monotonic`, in seconds."""

    def answered(self, began: float) -> None:
        """A call that got its permit at `began` has its first token."""

    def overloaded(self, began: float) -> None:
        """A call that got its permit at `began` was too much for the backend."""

    def returned(self) -> None:
        """A permit is free again."""


class AnyPermits(Protocol):
    """The permits of a deployment as its layers and views see them: `Permits`, or those of another process."""

    name: str
    max_queue: int

    @property
    def max_concurrency(self) -> int:
        """How many permits there are now."""
        ...

    @property
    def in_flight(self) -> int:
        """Permits that calls hold."""
        ...

    @property
    def queued(self) -> int:
        """Calls that wait for one."""
        ...

    async def acquire(self, caller: str = "", deadline: float | None = None) -> Permit:
        """See `Permits.acquire`."""
        ...


class Permit:
    """Held by one call from before the backend is asked until its stream closes."""

    __slots__ = ("_began", "_held", "_permits")

    def __init__(self, permits: Source, began: float) -> None:
        self._permits = permits
        self._began = began
        self._held = True

    def answered(self) -> None:
        """The backend has begun to answer: an adaptive limit learns from when."""
        self._permits.answered(self._began)

    def overloaded(self) -> None:
        """The backend had too much to do: an adaptive limit backs off."""
        self._permits.overloaded(self._began)

    def release(self) -> None:
        """Gives it back, to the next in the queue if there is one. May be called twice; never waits."""
        if self._held:
            self._held = False
            self._permits.returned()


@dataclass(slots=True, eq=False)
class _Turn:
    """One call that waits: `given` ends with its permit, or with why it gets none."""

    caller: str
    until: float
    given: asyncio.Future[None]


class Permits:
    """`limit` permits of one deployment; `max_queue` calls may wait for one.

    Those that wait take turns by caller, and are served in order within one. Where the queue is full, a newcomer takes
    the place of the youngest call of the caller that has most waiting, provided that this caller is left with no fewer
    than the newcomer's will have; else the newcomer is refused.

    A limit that moves is a function: one that adapts learns from what the permits' holders report, any other is looked
    at whenever a call comes or ends, and every 0.1 s while calls wait. Where it shrinks, those that hold permits keep
    them. Times are in seconds. `name` is the deployment's, for messages.
    """

    def __init__(
        self,
        name: str,
        limit: int | Callable[[], int],
        max_queue: int,
        queue_timeout_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._clock = clock
        self._in_flight = 0
        self.idle = 0
        """Those of them that were lent to another process, and that it does not use now."""
        self._queue: FairQueue[_Turn] = FairQueue()
        self._pace = Pace()
        self._full_since: float | None = None  # or since a permit came back last, all of them having been in use
        self._looking: asyncio.TimerHandle | None = None
        self._adaptive: AdaptiveLimit | None = None
        self.limit(limit, max_queue, queue_timeout_s)

    def limit(self, limit: int | Callable[[], int], max_queue: int, queue_timeout_s: float) -> None:
        """Sets the limits, for calls that hold a permit or wait for one too.

        Of more permits the next in the queue have theirs at once; with fewer, nobody gets one until enough are back.
        Who waits already keeps its place and its timeout; an adaptive limit with the bounds that it had keeps what it
        has learnt.
        """
        if not (isinstance(limit, AdaptiveLimit) and self._adaptive is not None and limit.like(self._adaptive)):
            self._limit = limit
            self._adaptive = limit if isinstance(limit, AdaptiveLimit) else None
        self.max_queue = max_queue
        self.queue_timeout_s = queue_timeout_s
        self._wake()
        if self._queue:
            self._look_again()

    def __repr__(self) -> str:
        return f"<Permits {self.name}: {self._in_flight}/{self.max_concurrency}, {self.queued} waiting>"

    @property
    def max_concurrency(self) -> int:
        """How many permits there are now."""
        return self._limit if isinstance(self._limit, int) else max(1, self._limit())

    @property
    def in_flight(self) -> int:
        """Permits that calls hold."""
        return max(0, self._in_flight - self.idle)

    @property
    def free(self) -> int:
        """Permits that a call would have at once; 0 while calls wait."""
        return 0 if self._queue else max(0, self.max_concurrency - self._in_flight)

    @property
    def steady(self) -> bool:
        """Whether the limit stays as it is until it is set anew."""
        return isinstance(self._limit, int)

    @property
    def learns(self) -> bool:
        """Whether the limit adapts to what is told of its permits."""
        return self._adaptive is not None

    def take(self, most: int) -> int:
        """Takes permits that are free now, `most` at most, each to be `returned`; says how many."""
        taken = min(most, self.free)
        for _ in range(taken):
            self._take(self._clock(), self.max_concurrency)
        return taken

    @property
    def queued(self) -> int:
        """Calls waiting for a permit."""
        return len(self._queue)

    def retry_after_s(self, caller: str = "") -> float:
        """When `caller`'s turn would come if it asked now, from how fast permits come back; between 0.1 and 60 s."""
        wait_s = self._pace.wait_s(self._queue.ahead(caller) + 1, self.max_concurrency)
        return 1.0 if wait_s is None else min(max(wait_s, _RETRY_RANGE_S[0]), _RETRY_RANGE_S[1])

    async def acquire(self, caller: str = "", deadline: float | None = None) -> Permit:
        """Waits for a permit on behalf of `caller` until the queue's timeout or `deadline` (on the clock).

        Raises `Overloaded` when the queue is full, the wait too long, or sure to outlast the deadline; at the deadline
        `DeadlineExceeded`.
        """
        self._wake()  # afterwards nobody waits beside a free permit
        now, limit = self._clock(), self.max_concurrency
        if self._in_flight < limit:
            self._take(now, limit)
            return Permit(self, now)
        if deadline is not None:
            self._check_in_time(caller, deadline - now)
        if len(self._queue) >= self.max_queue:
            self._make_room(caller)
        await self._wait(caller, deadline)
        return Permit(self, self._clock())

    def _check_in_time(self, caller: str, left_s: float) -> None:
        if left_s <= 0:
            raise self._late(0.0)
        place = self._queue.ahead(caller) + 1
        if self._pace.least_wait_s(place, self.max_concurrency) > left_s:
            wait_s = self.retry_after_s(caller)
            raise self._refusal(
                caller,
                Refusal.DEADLINE_TOO_NEAR,
                f"{place - 1} calls go before this one, about {wait_s:.1f} s, and its deadline is in {left_s:.1f} s",
            )

    def _make_room(self, caller: str) -> None:
        """Pushes out the youngest call of whoever has most, if it is left with no fewer than `caller`; or refuses."""
        if self._queue.longest <= self._queue.of(caller) + 1:
            in_use = f"{self._in_flight} of {self.max_concurrency} permits in use, and no queue"
            full = f"{self.queued} waiting, limit {self.max_queue}" if self.max_queue else in_use
            raise self._refusal(caller, Refusal.QUEUE_FULL, full)
        most = self._queue.longest
        turn = self._queue.drop()
        text = f"pushed out of a full queue, where {most} of {self.max_queue} waiting were this caller's"
        if not turn.given.done():  # else it is leaving already
            turn.given.set_exception(self._refusal(turn.caller, Refusal.PUSHED_OUT, text))

    async def _wait(self, caller: str, deadline: float | None) -> None:
        begun = self._clock()
        until = begun + self.queue_timeout_s
        hurried = deadline is not None and deadline < until
        if deadline is not None and hurried:
            until = deadline
        turn = _Turn(caller, until, asyncio.get_running_loop().create_future())
        self._queue.push(caller, turn)
        self._look_again()
        try:
            async with asyncio.timeout(until - begun):
                await turn.given
        except TimeoutError:
            if _given(turn):
                return
            raise (self._late(self._clock() - begun) if hurried else self._too_long(caller)) from None
        except asyncio.CancelledError:
            if _given(turn):  # cancelled in the same moment: the permit goes on to the next
                self.returned()
            raise
        finally:
            self._queue.remove(caller, turn)

    def _late(self, waited_s: float) -> DeadlineExceeded:
        text = f"`{self.name}`: the deadline passed in the queue, after {waited_s:.1f} s"
        return DeadlineExceeded(text, metadata={REFUSAL: Refusal.DEADLINE})

    def _too_long(self, caller: str) -> PolyrouteError:
        in_use = f"{self._in_flight} of {self.max_concurrency} in use"
        return self._refusal(caller, Refusal.QUEUE_TIMEOUT, f"no permit within {self.queue_timeout_s:g} s, {in_use}")

    def _refusal(self, caller: str, refusal: Refusal, text: str) -> Overloaded:
        return Overloaded(
            f"`{self.name}`: {text}", retry_after_s=self.retry_after_s(caller), metadata={REFUSAL: refusal}
        )

    def _take(self, now: float, limit: int) -> None:
        self._in_flight += 1
        if self._in_flight >= limit:
            self._full_since = now

    def returned(self) -> None:
        """A permit is free again: the next in the queue has it."""
        now, limit = self._clock(), self.max_concurrency
        if self._full_since is not None and self._in_flight >= limit:
            self._pace.returned(now - self._full_since, self._in_flight)
        self._in_flight -= 1
        self._full_since = now if self._in_flight >= limit else None
        self._wake()

    def answered(self, began: float) -> None:
        """A call that got its permit at `began` has its first token: an adaptive limit learns from when."""
        if self._adaptive is not None:
            self._adaptive.answered(began, self._clock(), self._in_flight)
            self._wake()

    def overloaded(self, began: float) -> None:
        """A call that got its permit at `began` was too much for the backend: an adaptive limit backs off."""
        if self._adaptive is not None:
            self._adaptive.overloaded(began, self._clock())

    def _wake(self) -> None:
        if not self._queue:
            return
        now = self._clock()
        while self._queue and self._in_flight < (limit := self.max_concurrency):
            turn = self._queue.pop()
            if not turn.given.done() and now < turn.until:  # else it is leaving already
                self._take(now, limit)
                turn.given.set_result(None)

    def _look_again(self) -> None:
        """While calls wait, a limit that moves by itself may let them go at any time."""
        if self._looking is None and self._adaptive is None and not isinstance(self._limit, int):
            self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = None
        self._wake()
        if self._queue:
            self._look_again()


def _given(turn: _Turn) -> bool:
    return turn.given.done() and not turn.given.cancelled() and turn.given.exception() is None
