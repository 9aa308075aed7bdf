"""One call on its way through the router, and the one shape that everything on that way has."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from polyroute.core.event import Event
from polyroute.core.request import Request
from polyroute.core.trace import NO_TRACE, Trace

_ID_BYTES: Final = 16
_DRAWN_AT_ONCE: Final = 256
_drawn: list[str] = []  # asked of the system one by one, they would cost a call as much as the rest of its making
os.register_at_fork(after_in_child=_drawn.clear)


def new_request_id() -> str:
    """A request ID that no other call has, and that nobody can guess: who knows one may say something of its answer."""
    try:
        return _drawn.pop()
    except IndexError:
        digits = os.urandom(_ID_BYTES * _DRAWN_AT_ONCE).hex()
        size = 2 * _ID_BYTES
        _drawn.extend(digits[i : i + size] for i in range(size, len(digits), size))
        return digits[:size]


class Entrance(msgspec.Struct, frozen=True, gc=False):
    """Where a call came in: `protocol` is `grpc` or `http`, empty for a call of our own.

    `method` is `package.Service/Method`, or a method and a path such as `POST /v1/generate`. `streams` says that an
    HTTP answer goes out as it comes, its status first.
    """

    protocol: str = ""
    method: str = "generate"
    streams: bool = False


class Worked:
    """What was worked out of one request, for whoever asks the same again. It holds of that very object, no other.

    `sought` is the cache's: what it looked for last, to answer it.
    """

    __slots__ = ("request", "sought")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sought: Any = None


class Call(msgspec.Struct, frozen=True, gc=False):
    """A request together with until when it is asked, and as part of which trace.

    `arrived` and `deadline` are on the clock of `time.monotonic`, in seconds. `trace` is where the call stands in its
    trace, for whatever does the work. A model that is not loaded is loaded for the call; `wait_for_load` says whether
    it waits for that, or is refused with `ModelLoading` meanwhile. `headers` holds, by their names in small letters,
    those of the caller's headers or metadata that some route is keyed on, and no others. `entrance` is where it came
    in. `tenant` is whose the call is, beyond whom no answer of it is shared; empty while callers need not say it.
    `start_by`, on the same clock, is until when the answer to a call without a deadline is to begin: a run is no call's
    own, and waits for that as long as any of the calls that share it.
    `copy` says that the call is a shadow's copy of another one: it is made once, and neither takes of nor decides what
    callers' calls share, such as retry budgets, trials and breakers.
    `worked` belongs to the request: calls that ask the very same may share it. None where nobody would read it.
    """

    request: Request
    request_id: str
    arrived: float = msgspec.field(default_factory=time.monotonic)
    deadline: float | None = None
    trace: Trace = NO_TRACE
    wait_for_load: bool = True
    copy: bool = False
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    entrance: Entrance = Entrance()
    tenant: str = ""
    start_by: float | None = None
    worked: Worked | None = None

    def under(self, trace: Trace) -> Call:
        """The same call in another trace."""
        if trace is self.trace:
            return self
        return Call(  # in full, for it is done for every call: `replace` takes twice the time
            request=self.request,
            request_id=self.request_id,
            arrived=self.arrived,
            deadline=self.deadline,
            trace=trace,
            wait_for_load=self.wait_for_load,
            copy=self.copy,
            headers=self.headers,
            entrance=self.entrance,
            tenant=self.tenant,
            start_by=self.start_by,
            worked=self.worked,
        )

    @property
    def begin_by(self) -> float | None:
        """Until when it is worth beginning to answer; None where that is not bounded."""
        return self.deadline if self.start_by is None else self.start_by

    def remaining_s(self, now: float) -> float | None:
        """Seconds left until the deadline, never below zero; None when there is no deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - now)


Service: TypeAlias = Callable[[Call], AsyncIterator[Event]]
"""What answers calls: exactly one `Started`, any number of `Token`s, then exactly one `Finished`; or one `Whole`, in
the place of them all; or it raises one of `polyroute.core.errors`. Yielding `Started` or `Whole` means that the answer
has begun: no other attempt may follow. An answer is read by one task, the one that asks for its first event; but a
replica's, of which a pool may have a task of its own await the first event."""
