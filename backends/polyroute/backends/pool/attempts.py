"""How a call is attempted at a pool's replicas until one begins to answer: retries, hedges, and the time for each."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from polyroute.backends.pool.attempt import Try
from polyroute.backends.pool.balance import Balance
from polyroute.backends.pool.blame import another_may_answer, same_may_answer
from polyroute.backends.pool.breaker import BreakerState
from polyroute.backends.pool.budget import RetryBudget
from polyroute.backends.pool.course import Course
from polyroute.backends.pool.first_tokens import FirstTokens
from polyroute.backends.pool.patience import Patience, patience, usual_s
from polyroute.backends.pool.race import race
from polyroute.backends.pool.replica import Replica
from polyroute.backends.pool.selection import best, no_replica, on_trial
from polyroute.core.call import Call
from polyroute.core.config import DeploymentConfig
from polyroute.core.errors import FirstTokenTimeout, PolyrouteError
from polyroute.core.event import Event

FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 2.0
"""Longest wait before the same replica is asked again: who has to wait longer is told so instead."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is injected: time in seconds, waiting, chance, and what is told of retries and hedges (their outcome).

    `on_open` is told of each breaker that opens: its replica's name, for how many seconds, and for what.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    chance: random.Random = field(default_factory=random.Random)
    on_retry: Callable[[str], None] = lambda _outcome: None
    on_hedge: Callable[[str], None] = lambda _outcome: None
    on_open: Callable[[str, float, str], None] = lambda _name, _open_for_s, _why: None


_Chosen: TypeAlias = tuple[Replica, str]
"""A replica, and why that one, in words; empty where there was no choice."""


class Attempts:
    """Attempts calls at `replicas`, which may change at any time, by the retries and hedges of `config`."""

    def __init__(
        self, config: DeploymentConfig, replicas: Sequence[Replica], balance: Balance, around: Surroundings
    ) -> None:
        self._config = config
        self._whole = Patience(config.first_token_timeout)
        self._replicas = replicas
        self._balance = balance
        self._around = around
        self._budget = RetryBudget(config.retry_budget, around.clock)
        self._first_tokens = FirstTokens()

    def adopt(self, config: DeploymentConfig, balance: Balance) -> None:
        """Goes on by other options and another policy; what the budget has counted and replicas have taken stays."""
        self._config = config
        self._whole = Patience(config.first_token_timeout)
        self._balance = balance
        self._budget.adopt(config.retry_budget)

    async def begin(self, call: Call) -> tuple[Try, Event]:
        """The attempt that answers and its first event, in which the failed ones stand. To be closed by the caller.

        Raises the last attempt's error, which holds all attempts; `NoReplica` where none could be made.
        """
        if not call.copy:
            self._budget.called()
        course = Course(call)
        chosen: _Chosen | None = self.choose(call)
        while chosen is not None:
            retried = bool(course.failed)
            attempt = self._try(course, chosen)
            delay_s = None if self._config.hedge is None or call.copy else self._hedge_after_s()
            try:
                if delay_s is None:
                    event = await attempt.first()
                else:
                    attempt, event = await self._hedged(course, attempt, delay_s)
            except PolyrouteError as error:
                if delay_s is None:
                    course.lost(attempt, error)
                if retried:
                    self._around.on_retry("failed")
                chosen = await self._following(course, error)
                if chosen is None:
                    raise error.after(tuple(course.failed), error.message) from error
            else:
                if retried:
                    self._around.on_retry("answered")
                if not call.copy:
                    self._first_tokens.add(attempt.answered_s)
                return attempt, course.told(event, attempt)
        raise AssertionError("unreachable: a call ends with an answer or an error")

    def may_repeat(self) -> bool:
        """Whether a call that has failed may be made anew, which is a retry as any other."""
        return self._config.retries > 0 and self._take()

    def choose(self, call: Call, *, goes: bool = True) -> _Chosen:
        """The replica for a call's first attempt; decided at once, so that no two calls decide on the same counts.

        Raises `NoReplica`. `goes` is False where the call is not sent there.
        """
        trial = None if call.copy else on_trial(self._replicas)
        if trial is not None:
            return trial, f"`{trial.name}` is tried, whether it is well again"
        chosen = self._among(best(self._replicas, ()), call, goes=goes)
        if chosen is None:
            raise no_replica(self._config.id, self._replicas)
        return chosen

    def _among(self, group: Sequence[Replica], call: Call, *, goes: bool = True) -> _Chosen | None:
        if not group:
            return None
        if len(group) == 1 and self._config.balance != "prefix":  # which remembers what it has given to whom
            return group[0], ""
        choice = self._balance.choose([replica.candidate for replica in group], call, goes=goes)
        if len(group) == 1:
            return group[0], choice.reason
        return next(replica for replica in group if replica.name == choice.name), choice.reason

    async def _following(self, course: Course, error: PolyrouteError) -> _Chosen | None:
        """The replica to ask after `error`, once it is time to; None where the call ends with it."""
        if course.call.copy or course.retries >= self._config.retries or not another_may_answer(error):
            return None
        replicas = self._replicas
        if not same_may_answer(error):
            replicas = self._untried(course)
        wait_s = self._wait_s(course, best(replicas, course.tried))
        if wait_s is None or wait_s > LONGEST_WAIT_S or not self._in_time(course.call, wait_s):
            return None
        if not self._take():
            return None
        course.retries += 1
        if wait_s:
            await self._around.sleep(wait_s)
        return self._among(best(replicas, course.tried), course.call)

    def _take(self) -> bool:
        """Takes a retry of the budget; False where none is left."""
        taken = self._budget.take()
        if not taken:
            self._around.on_retry("no_budget")
        return taken

    def _wait_s(self, course: Course, group: Sequence[Replica]) -> float | None:
        """Seconds to wait before one of `group` is asked: none for one that this call has not asked yet."""
        if not group:
            return None
        if group[0].name not in course.tried:
            return 0.0
        # Full jitter: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
        backoff_s = self._around.chance.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**course.retries))
        return max(backoff_s, min(replica.paused_s for replica in group))

    def _untried(self, course: Course) -> list[Replica]:
        return [replica for replica in self._replicas if replica.name not in course.tried]

    def _in_time(self, call: Call, wait_s: float) -> bool:
        """Whether an attempt that begins in `wait_s` seconds can answer in time, as far as is known."""
        remaining_s = self._remaining_s(call)
        return remaining_s is None or remaining_s > wait_s + self._first_tokens.typical_s

    def _remaining_s(self, call: Call) -> float | None:
        """Seconds left to begin to answer in, shared runs' too; None where there is no bound."""
        return None if call.begin_by is None else max(0.0, call.begin_by - self._around.clock())

    async def _hedged(self, course: Course, attempt: Try, delay_s: float) -> tuple[Try, Event]:
        """The first event of an attempt, or of a second one at another replica where that takes long."""
        hedge: list[Try] = []

        def spare() -> Try | None:
            second = self._second(course)
            if second is not None:
                hedge.append(second)
            return second

        try:
            winner, event = await race(attempt, delay_s, spare, course.lost, self._beaten)
        except PolyrouteError:
            if hedge:
                self._around.on_hedge("failed")
            raise
        if hedge:
            self._around.on_hedge("won" if winner is hedge[0] else "lost")
            course.notes.append(f"`{hedge[0].replica.name}` was asked as well after {delay_s:.3g} s")
        return winner, event

    def _beaten(self, attempt: Try) -> None:
        """Another replica has answered first. That hides one that hangs: its silence is judged before it is closed."""
        usually_s, silent_s = usual_s(self._first_tokens), attempt.duration_s
        if usually_s is not None and silent_s > usually_s:
            late = f"`{attempt.replica.name}`: no first token within {silent_s:.3g} s, while another replica answered"
            attempt.lost(FirstTokenTimeout(late))

    def _try(self, course: Course, chosen: _Chosen) -> Try:
        replica, why = chosen
        course.tried.add(replica.name)
        model, limit = self._config.id, self._patience(course, replica)
        return Try(model, replica, course.call, limit, why, clock=self._around.clock)

    def _second(self, course: Course) -> Try | None:
        """An attempt at another replica that is well, beside the one that takes long."""
        others = [replica for replica in self._untried(course) if replica.is_available()]
        if not others or not self._in_time(course.call, 0):
            return None
        if not self._budget.take():
            self._around.on_hedge("no_budget")
            return None
        chosen = self._among(others, course.call)
        return None if chosen is None else self._try(course, chosen)

    def _hedge_after_s(self) -> float | None:
        hedge = self._config.hedge
        if hedge is None or len(self._replicas) < 2:
            return None
        if isinstance(hedge.after, str):
            return self._first_tokens.percentile_s(int(hedge.after[1:]))
        return hedge.after

    def _patience(self, course: Course, replica: Replica) -> Patience:
        if len(self._replicas) == 1:
            return self._whole
        remaining_s = self._remaining_s(course.call)
        trial = replica.breaker.state is BreakerState.HALF_OPEN
        following = 0
        if remaining_s is not None or trial:
            others = sum(other is not replica and other.is_available() for other in self._untried(course))
            following = min(others, self._config.retries - course.retries)
        return patience(self._config.first_token_timeout, remaining_s, following, self._first_tokens, trial=trial)
