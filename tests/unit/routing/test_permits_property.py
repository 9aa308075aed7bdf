"""Permits under any order of calls, ends, departures, delays and changes of the limit, on a clock of the test's."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from polyroute.core.errors import DeadlineExceeded, Overloaded
from polyroute.routing.permits import REFUSAL, Permit, Permits, Refusal

MAX_QUEUE = 4
QUEUE_TIMEOUT_S = 10.0
CALLERS = "abc"


class StillLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still until it is moved, and which never waits for anything."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Runs what can run."""

        async def turns() -> None:
            for _ in range(10):
                await asyncio.sleep(0)

        self.run_until_complete(turns())


@dataclass(eq=False)
class Asked:
    """One call as the test knows it."""

    caller: str
    asked: float
    until: float
    hurried: bool
    task: asyncio.Task[Permit]
    left: bool = False


class Calls(RuleBasedStateMachine):
    """Calls of three callers come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = StillLoop()
        self.limit = 2
        self.permits = Permits("m", lambda: self.limit, MAX_QUEUE, QUEUE_TIMEOUT_S, clock=self.loop.time)
        self.waiting: list[Asked] = []
        self.held: list[Permit] = []
        self.overtaken = {caller: Counter[str]() for caller in CALLERS}  # how often by whom since its last turn

    def teardown(self) -> None:
        try:
            self.until_empty()
            assert (self.permits.in_flight, self.permits.queued) == (0, 0)
            assert repr(self.permits._queue) == "<FairQueue 0 of 0 callers, most 0>"
            assert not asyncio.all_tasks(self.loop)
        finally:
            self.loop.close()

    def until_empty(self) -> None:
        """Everybody who still waits gets a permit, when the others give theirs back."""
        while self.held:
            for permit in self.held:
                permit.release()
            self.held = []
            self.look()
        assert not self.waiting, "a waiter was lost"

    @rule(caller=st.sampled_from(CALLERS), patience=st.sampled_from([None, -1.0, 0.5, 3.0, 30.0]))
    def ask(self, caller: str, patience: float | None) -> None:
        now = self.loop.now
        deadline = None if patience is None else now + patience
        free = self.permits.in_flight < self.limit and not self.permits.queued
        task = self.loop.create_task(self.permits.acquire(caller, deadline))
        until = now + QUEUE_TIMEOUT_S
        hurried = deadline is not None and deadline < until
        asked = Asked(caller, now, deadline if deadline is not None and hurried else until, hurried, task)
        self.waiting.append(asked)
        refused = self.look()
        waiting = self.waiting_by_caller()
        assert waiting.total() <= MAX_QUEUE
        assert not free or permit_of(task)
        if refused.get(Refusal.QUEUE_FULL):
            assert waiting.total() == MAX_QUEUE
            assert max(waiting.values()) <= waiting[caller] + 1
        for pushed_out in refused.get(Refusal.PUSHED_OUT, ()):
            assert waiting.total() == MAX_QUEUE
            assert waiting[pushed_out] >= waiting[caller]
            assert waiting[pushed_out] + 1 >= max(waiting.values())

    @precondition(lambda self: self.held)
    @rule(
        place=st.integers(0, 100),
        report=st.sampled_from([Permit.answered, Permit.overloaded, None]),
        after_s=st.sampled_from([0.0, 0.0, 5.0]),
    )
    def end(self, place: int, report: Callable[[Permit], None] | None, after_s: float) -> None:
        """A call ends; perhaps just when others have waited too long, of which they do not know yet."""
        self.loop.now += after_s
        permit = self.held.pop(place % len(self.held))
        if report is not None:
            report(permit)
        permit.release()
        permit.release()
        self.look()

    @precondition(lambda self: self.waiting)
    @rule(place=st.integers(0, 100), meanwhile=st.booleans())
    def leave(self, place: int, meanwhile: bool) -> None:
        """One who waits is cancelled; perhaps in the moment in which a permit comes back."""
        if meanwhile and self.held:
            self.held.pop().release()
        asked = self.waiting[place % len(self.waiting)]
        asked.left = True
        asked.task.cancel()
        self.look()

    @rule(seconds=st.sampled_from([0.2, 1.0, 4.0]))
    def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.look()

    @rule(limit=st.integers(1, 5))
    def move_limit(self, limit: int) -> None:
        """The limit moves, and is looked at a little later."""
        grown = limit > self.limit
        self.limit = limit
        self.loop.now += 0.11
        self.look()
        if grown and self.waiting:
            assert self.permits.in_flight >= limit

    def look(self) -> dict[str, list[str]]:
        """Lets everything run, and notes whose waiting is over; returns the callers of those refused, by why."""
        refused: dict[str, list[str]] = {}
        served: Counter[str] = Counter()
        left = set()
        before = self.waiting_by_caller()
        self.loop.settle()
        for asked in [asked for asked in self.waiting if asked.task.done()]:
            place = self.waiting.index(asked)
            del self.waiting[place]
            if permit_of(asked.task):
                assert self.loop.now < asked.until or asked.asked == self.loop.now
                assert asked.caller not in [other.caller for other in self.waiting[:place]]
                self.held.append(asked.task.result())
                served[asked.caller] += 1
                continue
            left.add(asked.caller)
            if asked.task.cancelled():
                assert asked.left
            else:
                refused.setdefault(self.refusal(asked), []).append(asked.caller)
        self.note_turns(before, served, left)
        return refused

    def refusal(self, asked: Asked) -> str:
        error = asked.task.exception()
        if isinstance(error, DeadlineExceeded):
            assert asked.hurried
            assert self.loop.now >= asked.until
        else:
            assert isinstance(error, Overloaded)
            assert error.retry_delay_s
            timed_out = error.metadata[REFUSAL] == Refusal.QUEUE_TIMEOUT
            assert not timed_out or self.loop.now >= asked.asked + QUEUE_TIMEOUT_S
        return error.metadata[REFUSAL]

    def note_turns(self, before: Counter[str], served: Counter[str], left: set[str]) -> None:
        """Nobody is served twice while another waits who had no turn in between, nor spent it on a call that left."""
        after = self.waiting_by_caller()
        for caller, overtaken in self.overtaken.items():
            if not before[caller] or not after[caller] or served[caller] or caller in left:
                overtaken.clear()
            else:
                overtaken.update(served)
            assert max(overtaken.values(), default=0) <= 1

    def waiting_by_caller(self) -> Counter[str]:
        return Counter(asked.caller for asked in self.waiting)

    @invariant()
    def nobody_waits_beside_a_free_permit_or_past_the_end(self) -> None:
        assert self.permits.in_flight == len(self.held)
        assert self.permits.queued == len(self.waiting)
        assert not self.waiting or self.permits.in_flight >= self.limit
        assert all(self.loop.now < asked.until for asked in self.waiting)


def permit_of(task: asyncio.Task[Permit]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
