"""Equal calls in flight share one run: whoever comes while it goes on follows it from its first event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, Generic, TypeAlias, TypeVar

import structlog

from polyroute.core.errors import Draining
from polyroute.routing.cache.follower import Follower, RunFailed, own

T = TypeVar("T")

log = structlog.get_logger(__name__)

MAX_HELD_BYTES: Final = 16 * 1024 * 1024
"""Most that one run holds for those who follow it; from then on nobody joins it, and who is so far behind is left."""


class Flight(Generic[T]):
    """One run, detached from whoever began it: it goes on while anyone follows, or to its end where it is `lasting`.

    It holds what the run has `put`, `most_bytes` of it: beyond that, what all have taken is given up, and then whoever
    is slowest, unless everybody is slow; then the run waits.
    """

    __slots__ = (
        "__weakref__",
        "_held",
        "_of",
        "_on_end",
        "complete",
        "failure",
        "first",
        "followers",
        "is_open",
        "items",
        "key",
        "lasting",
        "room",
        "task",
    )

    def __init__(self, of: Flights[T], key: Hashable, *, lasting: bool, on_end: Callable[[Flight[T]], None]) -> None:
        self.key = key
        self.is_open = False
        """Whether it can be joined."""
        self.complete = False
        """Whether the last item is there."""
        self.failure: BaseException | None = None
        self.followers: list[Follower[T]] = []  # a set takes more for a few, and most have one
        self.items: list[T] = []  # a deque takes room for 64 at once, and most runs hold few for most of their time
        """Those that it holds: all that a follower has not taken are among them."""
        self.first = 0
        """How many there were before those."""
        self._of = of
        self.lasting = lasting
        self._on_end = on_end
        self._held = 0
        self.room: asyncio.Future[None] | None = None
        """Ends once it may have room, where the run waits for that: whoever takes an item tells it, by `taken`."""
        self.task: asyncio.Task[None]  # from `Flights.begin` on

    def __repr__(self) -> str:
        state = "failed" if self.failure is not None else "complete" if self.complete else "running"
        return f"<Flight {self.name} {state} items={self.end} followers={len(self.followers)}>"

    @property
    def name(self) -> str:
        """That of the deployment, for messages."""
        return self._of.name

    @property
    def most_bytes(self) -> int:
        """The most that it holds."""
        return self._of.most_bytes

    @property
    def end(self) -> int:
        """Items that there have been."""
        return self.first + len(self.items)

    @property
    def furthest(self) -> float | None:
        """The last of its followers' deadlines; None where one of them has none, and where nobody follows."""
        deadlines = [follower.deadline for follower in self.followers]
        return None if None in deadlines else max((d for d in deadlines if d is not None), default=None)

    def follow(self, deadline: float | None = None, *, led: bool = False) -> Follower[T]:
        """One more follows, from the first item."""
        follower = Follower(self, deadline, led=led)
        self.followers.append(follower)
        return follower

    def failed(self, follower: Follower[T]) -> Exception:
        """The failure for one follower, which may do otherwise where it has taken nothing."""
        untouched = RunFailed(f"`{self.name}`: the shared run failed")
        error = own(self.failure, led=follower.led) if follower.place else untouched
        error.__cause__ = self.failure
        return error

    def put(self, item: T) -> bool:
        """Takes one of the run's items; the last one completes it, and nobody joins it any more.

        Says whether it has too much now: then the run is to `make_room`.
        """
        of = self._of
        self.items.append(item)
        self._held += of.size_of(item)
        full = self._held > of.most_bytes
        if isinstance(item, of.last):
            self.complete = True
        if full or self.complete:
            of.close_to_newcomers(self)  # there is the cache now, or the beginning will be given up
        for follower in self.followers:
            if follower.waiting is not None:
                follower.wake()
        return full

    def taken(self) -> None:
        """A follower has taken an item, or has left."""
        if self.room is not None and not self.room.done():
            self.room.set_result(None)

    def leave(self, follower: Follower[T]) -> bool:
        """One follows no longer. Says whether to wait for the run's end: the last has left one that is not complete,
        which ends with that; or one without a key, which nobody else knows of."""
        if follower in self.followers:  # one that was cut is not
            self.followers.remove(follower)
        if self.room is not None:
            self.taken()
        if self.followers or self.lasting or self.task.done():
            return False
        if self.complete:
            return self.key is None
        self._of.close_to_newcomers(self)
        self.task.cancel()
        return True

    def ended(self, task: asyncio.Task[None]) -> None:
        """The run is over; its task may have been cancelled before it began."""
        error = Draining(f"`{self.name}`: the shared run was ended") if task.cancelled() else task.exception()
        if error is None:
            self.complete = True
        elif not self.complete:
            self.failure = error
        elif not task.cancelled():
            log.error("run.crashed", model=self.name, exc_info=error, effect="none on the answer, which was complete")
        self._of.ended(self)
        self._on_end(self)
        for follower in self.followers:
            follower.wake()

    async def make_room(self) -> None:
        """Returns once there is room for another item."""
        await asyncio.sleep(0)  # those that have waited for the last item take it
        while self._trim() > self.most_bytes:
            if any(follower.waiting is not None for follower in self.followers):
                for follower in self.followers:
                    follower.cut = follower.place == self.first
                self.followers = [follower for follower in self.followers if not follower.cut]
            else:
                self.room = asyncio.get_running_loop().create_future()
                await self.room
                await asyncio.sleep(0)  # whoever took something may be waiting by now

    def _trim(self) -> int:
        """Gives up what nobody is left to take; returns the bytes that are still held."""
        needed = min((follower.place for follower in self.followers), default=self.end)
        given_up = needed - self.first
        self._held -= sum(map(self._of.size_of, self.items[:given_up]))
        del self.items[:given_up]
        self.first = needed
        return self._held


class Flights(Generic[T]):
    """The runs of one deployment that can be joined, by what they answer. `name` is the deployment's, for messages.

    An item of one of the types `last` is the last one; `size_of` gives about how many bytes one takes.
    """

    def __init__(
        self, name: str, *, size_of: Callable[[T], int], last: tuple[type, ...], most_bytes: int = MAX_HELD_BYTES
    ) -> None:
        self.name = name
        self.size_of = size_of
        self.last = last
        self.most_bytes = most_bytes
        self._task_name = f"shared run of {name}"
        self._open: dict[Hashable, Flight[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Flights {self.name} {list(self._open.values())}>"

    def __contains__(self, key: Hashable) -> bool:
        return key in self._open

    def is_lasting(self, key: Hashable) -> bool:
        """Whether the run for `key`, which there is, needs no followers."""
        return self._open[key].lasting

    def __len__(self) -> int:
        """Runs that have not ended."""
        return len(self._tasks)

    @property
    def following(self) -> int:
        """Calls that follow a run which can be joined."""
        return sum(len(flight.followers) for flight in self._open.values())

    def follow(self, *keys: Hashable, deadline: float | None = None) -> Follower[T] | None:
        """Joins the run that answers the first of the `keys` for which there is one."""
        for key in keys:
            if (flight := self._open.get(key)) is not None:
                return flight.follow(deadline)
        return None

    def begin(
        self,
        key: Hashable,
        run: Run[T],
        *,
        lasting: bool = False,
        on_end: Callable[[Flight[T]], None] = lambda _: None,
    ) -> Flight[T]:
        """Begins a run that others may join; there must be none for `key`. A `lasting` one needs no followers.

        `run` begins once whoever joins in this moment has joined; `on_end` is called when it is over. One without a
        key is nobody's but its follower's: it is not among those that are known here.
        """
        flight = Flight(self, key, lasting=lasting, on_end=on_end)
        flight.task = task = asyncio.get_running_loop().create_task(run(flight), name=self._task_name)
        task.add_done_callback(flight.ended)
        if key is not None:
            flight.is_open = True
            self._open[key] = flight
            self._tasks.add(task)
        return flight

    def close_to_newcomers(self, flight: Flight[T]) -> None:
        """Nobody joins that run any more."""
        if flight.is_open:
            flight.is_open = False
            del self._open[flight.key]

    def ended(self, flight: Flight[T]) -> None:
        """That run is over."""
        self.close_to_newcomers(flight)
        self._tasks.discard(flight.task)

    async def close(self) -> None:
        """Ends every run; those that still follow one get `Draining`."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))


Run: TypeAlias = Callable[[Flight[T]], Coroutine[Any, Any, None]]
"""What a flight carries: puts its items, in order, and returns after the last."""
