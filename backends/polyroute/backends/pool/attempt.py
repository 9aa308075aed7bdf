"""One call at one replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import cast

from polyroute.backends.pool.attempt_span import begin
from polyroute.backends.pool.patience import Patience
from polyroute.backends.pool.replica import Replica
from polyroute.core.attributes import OUTCOME
from polyroute.core.call import Call
from polyroute.core.errors import (
    Cancelled,
    DeadlineExceeded,
    FirstTokenTimeout,
    Internal,
    PeerFailed,
    PolyrouteError,
    clip,
)
from polyroute.core.event import Attempt, Event
from polyroute.core.trace import Span
from polyroute.core.wait import Wait

_QUOTED_CHARS = 300


class Try:
    """The call is in flight at `replica` of `model` from the making of this until `close`, which is to follow anyway.

    `first` gives the first event, `events` the others, `done` is to be called after the last of them; `lost` with
    the error that came instead of one.
    """

    __slots__ = (
        "_admission",
        "_begun",
        "_clock",
        "_closed",
        "_copy",
        "_deadline",
        "_judged",
        "_outcome",
        "_patience",
        "_span",
        "answered_s",
        "begun_at",
        "events",
        "replica",
        "why",
    )

    def __init__(
        self,
        model: str,
        replica: Replica,
        call: Call,
        patience: Patience,
        why: str,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.replica = replica
        self._copy = call.copy
        self._deadline = call.deadline
        self.why = why
        """Why this replica, in words; empty where there was no choice."""
        self._span: Span | None = None
        if call.trace.span is not None:
            self._span = begin(call.trace.span, call, model, replica.name, why)
            call = call.under(call.trace.under(self._span))
        self.events = cast("AsyncGenerator[Event, None]", replica.backend.stream(call))
        self.begun_at = clock()
        self.answered_s = 0.0
        """Seconds until it began to answer."""
        self._patience = patience
        self._clock = clock
        self._admission = replica.admit()
        self._begun = False
        self._judged = False
        self._outcome = Cancelled.reason
        self._closed = False

    def __repr__(self) -> str:
        return f"<Try {self.replica.name} {'answering' if self._begun else 'asked'}>"

    @property
    def duration_s(self) -> float:
        """Seconds since it was begun."""
        return self._clock() - self.begun_at

    async def first(self) -> Event:
        """The answer's first event; raises what came instead, `FirstTokenTimeout` where nothing came in time.

        Without one this is closed here: elsewhere it cannot be while its stream runs.
        """
        name, limit_s = self.replica.name, self._patience.seconds
        wait = Wait()
        limit = asyncio.get_running_loop().call_later(limit_s, wait.cut)
        try:
            event = await anext(self.events)
            self._begun = True
        except StopAsyncIteration:
            empty = PeerFailed(f"`{name}` ended without an answer")
            self.lost(empty)
            raise empty from None
        except asyncio.CancelledError:
            if not wait.was_cut():
                raise
            late = FirstTokenTimeout(f"`{name}`: no first token within {limit_s:.3g} s")
            self.lost(late, excused=self._patience.hurried)
            raise late from None
        except PolyrouteError as error:
            self.lost(error)
            raise
        except Exception as error:
            self.crashed(error)
            raise
        finally:
            limit.cancel()
            wait.was_cut()
            if not self._begun:
                await self.close()
        self.answered_s = answered_s = self.duration_s
        if not self._copy:
            self.replica.tally.answering(answered_s)
        self.replica.answering(self._admission)
        return event

    def lost(self, error: PolyrouteError, *, excused: bool = False) -> None:
        """The call has failed there; `excused` where the replica had less time than calls usually need."""
        if not self._judged:
            self._judged = True
            self._outcome = error.reason
            if self._copy:
                self.replica.breaker.left(self._admission)
            else:
                self.replica.failed(self._admission, error, excused=excused)
            if self._span is not None:
                self._span.failed(error.reason, error.own_message)

    def crashed(self, error: Exception) -> None:
        """A bug of ours has ended it, which says nothing against the replica."""
        if self._span is not None:
            self._span.failed(Internal.reason, type(error).__name__)  # its text stands in the log

    def done(self) -> None:
        """The answer is complete."""
        self._judged = True
        self._outcome = "ok"
        if self._copy:
            self.replica.breaker.left(self._admission)
        else:
            self.replica.breaker.succeeded(self._admission)

    async def close(self) -> None:
        """Ends it, however far it has come. A caller that left an answer amid says nothing against the replica."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.events.aclose()
        finally:
            if not self._copy:
                self.replica.tally.ended(self._outcome, self.duration_s)
            if not self._judged:
                if self._span is not None and self._span.error is None:
                    self._given_up(self._span)
                if self._begun:
                    self.done()
                else:
                    self.replica.breaker.left(self._admission)
            self.replica.release()
            if self._span is not None:
                self._span.end()

    def _given_up(self, span: Span) -> None:
        if self._deadline is not None and self._clock() >= self._deadline:
            span.failed(DeadlineExceeded.reason, "the caller's deadline passed")
        else:
            span.attributes[OUTCOME] = Cancelled.reason

    def told(self, error: PolyrouteError) -> Attempt:
        """The failed attempt, for the route; whoever knows the deployment fills it in."""
        return Attempt(
            deployment="",
            replica=self.replica.name,
            reason=error.reason,
            message=clip(error.message, _QUOTED_CHARS),
            duration_s=self.duration_s,
        )
