"""Permits that are another process's: a call here holds one that was lent, so that all processes keep one limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from polyroute.routing.permits import Permit


@dataclass(frozen=True, slots=True)
class Terms:
    """What a lender gives beside the permit that was asked for: `spare` others, to be used by the next calls.

    `keep` permits that come back may stay with the borrower. `learns` says that the lender wants to hear how calls go.
    """

    spare: int = 0
    keep: int = 0
    learns: bool = False


class Lender(Protocol):
    """The process that has the permits, as one that borrows them sees it."""

    async def ask(self, permits: LentPermits, caller: str, deadline: float | None, *, ahead: bool) -> None:
        """Returns with one permit, after it has told `permits` the terms; raises what `Permits.acquire` raises.

        Only with `ahead` are others lent with it. Cancelled, it has taken none.
        """

    def give_back(self, permits: LentPermits, count: int) -> None:
        """Permits that were lent are free again."""

    def judged(self, permits: LentPermits, began: float, *, overloaded: bool) -> None:
        """A call that got its permit at `began` has its first token, or was too much for the backend."""


class LentPermits:
    """Stands in for `polyroute.routing.permits.Permits` where those are in another process, `lender`.

    A permit that comes back stays here as a spare for the next call, as far as the lender's terms allow; beyond that
    half of the spare ones are given back with it, so that calls that come and go in bursts ask seldom. Calls wait in
    the one queue that the lender has. How all processes stand together, `stands` tells now and then. `key` is what
    lender and borrower call these permits.
    """

    def __init__(
        self, name: str, lender: Lender, key: int, max_queue: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.key = key
        self.max_queue = max_queue
        self.max_concurrency = 0
        """How many permits there are in all, as far as is known."""
        self.queued = 0
        """Calls that wait for one, in all processes, as far as is known."""
        self.here = 0
        """Permits that calls of this process hold."""
        self.spare = 0
        """Permits that were lent to this process and that nobody here uses."""
        self._lender = lender
        self._clock = clock
        self._keep = 0
        self._asking = 0
        self._learns = False
        self._retired = False
        self._elsewhere = 0

    def __repr__(self) -> str:
        return f"<LentPermits {self.name}: {self.here} in use, {self.spare} spare>"

    @property
    def in_flight(self) -> int:
        """Permits that calls hold, in all processes."""
        return self.here + self._elsewhere

    async def acquire(self, caller: str = "", deadline: float | None = None) -> Permit:
        """As `Permits.acquire`: at once where there is a spare one, else of the lender."""
        if self.spare:
            self.spare -= 1
        else:
            await self._ask(caller, deadline)
        self.here += 1
        return Permit(self, self._clock())

    async def _ask(self, caller: str, deadline: float | None) -> None:
        """Of calls that ask at the same time one has some lent ahead, or each of a burst would."""
        self._asking += 1
        try:
            await self._lender.ask(self, caller, deadline, ahead=self._asking == 1)
        finally:
            self._asking -= 1

    def lent(self, terms: Terms) -> None:
        """The lender has given a permit, on these terms."""
        self.spare += terms.spare
        self._keep, self._learns = terms.keep, terms.learns
        if self._retired:
            self.retire()

    def recalled(self) -> int:
        """The lender wants back what nobody uses here, and the rest as soon as it is free; says how many those are."""
        self._keep = 0
        spare, self.spare = self.spare, 0
        return spare

    def retire(self) -> None:
        """Others take their place: only calls that began with these still use them, and nothing stays here any more."""
        self._retired = True
        if spare := self.recalled():
            self._lender.give_back(self, spare)

    def stands(self, elsewhere: int, queued: int, max_concurrency: int) -> None:
        """How all processes stand: permits that calls of others hold, calls that wait, and the limit."""
        self._elsewhere, self.queued, self.max_concurrency = elsewhere, queued, max_concurrency

    def returned(self) -> None:
        """A call has ended."""
        self.here -= 1
        if self.spare < self._keep:
            self.spare += 1
        else:
            surplus = self.spare // 2
            self.spare -= surplus
            self._lender.give_back(self, surplus + 1)

    def answered(self, began: float) -> None:
        """See `polyroute.routing.permits.Source`."""
        if self._learns:
            self._lender.judged(self, began, overloaded=False)

    def overloaded(self, began: float) -> None:
        """See `polyroute.routing.permits.Source`."""
        if self._learns:
            self._lender.judged(self, began, overloaded=True)
