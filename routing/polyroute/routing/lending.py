"""Lends the permits of deployments to other processes: a few ahead while there are plenty, one by one when not."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from polyroute.routing.lent_permits import Terms
from polyroute.routing.permits import Permits

MOST_SPARE: Final = 256
"""Most permits of one deployment that a process has without using them."""

RECALL_S: Final = 1.0
"""How long a process that does not answer, being stopped or stuck, keeps others waiting for what it may have spare."""


class Borrower(Protocol):
    """A process that permits are lent to."""

    def recall(self, key: int) -> None:
        """Has it give back its spare permits of a loan, by `Lending.recalled`, and keep none from now on."""


_Key: TypeAlias = tuple[Borrower, int]


@dataclass(slots=True, eq=False)
class _Loan:
    permits: Permits
    count: int = 0  # lent and not given back
    idle: int = 0  # of these, as the borrower has said, not in use
    generous: bool = False  # whether the borrower may have got spare ones since the last recall
    answers: deque[asyncio.Future[None]] = field(default_factory=deque)  # to recalls, in their order


@dataclass(slots=True)
class Lending:
    """Lends the permits that `find` has for a deployment's ID, which raises where there is none of it.

    The number of permits that are lent and not given back never exceeds the limit: a process that lends itself nothing
    cannot use more than it has. A borrower chooses a `key` for each of the permits that it stands in for.
    """

    find: Callable[[str], Permits]
    _loans: dict[_Key, _Loan] = field(default_factory=dict)
    _of: dict[Permits, dict[_Key, _Loan]] = field(default_factory=dict)
    _asked: Counter[Permits] = field(default_factory=Counter)  # by calls that have not got theirs

    async def ask(
        self, borrower: Borrower, key: int, name: str, caller: str, deadline: float | None, *, ahead: bool = True
    ) -> Terms:
        """Lends a permit, and with `ahead` some more; raises what `find` and `Permits.acquire` raise.

        Before a call waits or is refused, what other processes have spare is called back.
        """
        loan = self._loan(borrower, key, name)
        permits = loan.permits
        self._asked[permits] += 1
        try:
            if not permits.free:
                await self._call_back(permits)
            await permits.acquire(caller, deadline)
        except BaseException:
            if self._loans.get((borrower, key)) is loan:
                self._drop_if_over((borrower, key), loan)
            raise
        finally:
            self._asked -= Counter((permits,))
        loan = self._loan(borrower, key, name, permits)
        loan.count += 1
        if not permits.steady:  # it may shrink at any time, for those too who have spare ones
            return Terms(learns=permits.learns)
        plenty = max(0, permits.free - self._asked[permits])
        keep = min(plenty // (2 * len(self._of[permits])), MOST_SPARE)
        spare = permits.take(keep) if ahead else 0
        loan.count += spare
        loan.generous |= keep > 0
        return Terms(spare, keep)

    def give_back(self, borrower: Borrower, key: int, count: int) -> None:
        """Permits of a loan are free again: those of one call, and such as were spare."""
        loan = self._loans[borrower, key]
        loan.count -= count
        self._tell_idle(loan, max(0, loan.idle - max(0, count - 1)))
        for _ in range(count):
            loan.permits.returned()
        self._drop_if_over((borrower, key), loan)

    def recalled(self, borrower: Borrower, key: int, count: int) -> None:
        """The answer to `Borrower.recall`."""
        loan = self._loans.get((borrower, key))
        if loan is None:  # all of it came back before
            return
        self._tell_idle(loan, 0)
        if loan.answers:
            _set(loan.answers.popleft())
        self.give_back(borrower, key, count)

    def judged(self, borrower: Borrower, key: int, began: float, *, overloaded: bool) -> None:
        """A call went well, or was too much: see `polyroute.routing.permits.Source`."""
        loan = self._loans.get((borrower, key))
        if loan is not None and overloaded:
            loan.permits.overloaded(began)
        elif loan is not None:
            loan.permits.answered(began)

    def idle(self, borrower: Borrower, key: int, count: int) -> None:
        """A borrower tells how many permits it has spare."""
        if (loan := self._loans.get((borrower, key))) is not None:
            self._tell_idle(loan, count)

    async def recall_all(self) -> None:
        """Calls back everything that is spare, where limits have changed."""
        await self._wait(self._loans.items())

    def end(self, borrower: Borrower) -> None:
        """A borrower is gone: whatever it had is free."""
        for key, loan in [(key, loan) for key, loan in self._loans.items() if key[0] is borrower]:
            for answer in loan.answers:
                _set(answer)
            loan.answers.clear()
            self.give_back(*key, loan.count)

    async def _call_back(self, permits: Permits) -> None:
        await self._wait(self._of.get(permits, {}).items())

    async def _wait(self, loans: Iterable[tuple[_Key, _Loan]]) -> None:
        answers: list[asyncio.Future[None]] = []
        for (borrower, key), loan in list(loans):
            if loan.generous:
                loan.generous = False  # until it gets some again, which may be on their way when the recall comes
                loan.answers.append(asyncio.get_running_loop().create_future())
                borrower.recall(key)
            answers.extend(loan.answers)
        if answers:
            _, late = await asyncio.wait(answers, timeout=RECALL_S)
            for answer in late:  # which nobody waits for a second time
                _set(answer)

    def _loan(self, borrower: Borrower, key: int, name: str, permits: Permits | None = None) -> _Loan:
        loan = self._loans.get((borrower, key))
        if loan is None:
            loan = _Loan(permits or self.find(name))
            self._loans[borrower, key] = loan
            self._of.setdefault(loan.permits, {})[borrower, key] = loan
        return loan

    def _tell_idle(self, loan: _Loan, count: int) -> None:
        loan.permits.idle += count - loan.idle
        loan.idle = count

    def _drop_if_over(self, key: _Key, loan: _Loan) -> None:
        if loan.count:
            return
        self._tell_idle(loan, 0)
        for answer in loan.answers:
            _set(answer)
        if loan.answers:  # they are on their way, and must not be taken for those of a later loan
            return
        del self._loans[key]
        of = self._of[loan.permits]
        del of[key]
        if not of:
            del self._of[loan.permits]


def _set(answer: asyncio.Future[None]) -> None:
    if not answer.done():
        answer.set_result(None)
