"""The answers and counts that a worker owes, each with whoever waits for it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from polyroute.backends.local.inbox import Inbox
from polyroute.backends.local.messages import Counted, Dropped, FromWorker, Rejected, Step
from polyroute.core.errors import (
    InvalidArgument,
    ModelFailed,
    Overloaded,
    PolyrouteError,
    PromptTooLong,
    Unsupported,
)

_MEMORY_RETRY_S = 5.0


class Answers:
    """Knows answers by the IDs that it gives them.

    An answer is `open` while somebody reads it here, and `held` while the worker works on it: one that is cancelled is
    closed at once, and held until the worker says that it has dropped it. `on_busy` is called with True when the first
    is held, with False when none is any more.
    """

    def __init__(self, model: str, on_busy: Callable[[bool], None]) -> None:
        self._model = model
        self._on_busy = on_busy
        self._ids = itertools.count(1)
        self._open: dict[int, Inbox] = {}
        self._counts: dict[int, asyncio.Future[int]] = {}
        self._held: set[int] = set()

    @property
    def held(self) -> int:
        """How many answers the worker works on."""
        return len(self._held)

    def new_id(self) -> int:
        """An ID that no answer has had."""
        return next(self._ids)

    def open(self, id: int, hold: Callable[[bool], None]) -> Inbox:
        """Opens an answer, which the worker holds from now on; `hold` as of `Inbox`."""
        inbox = self._open[id] = Inbox(hold)
        self._held.add(id)
        self._on_busy(True)
        return inbox

    def close(self, id: int) -> bool:
        """Nobody reads the answer any more; whether the worker still holds it."""
        self._open.pop(id, None)
        return id in self._held

    def open_count(self, id: int) -> asyncio.Future[int]:
        """A future number of tokens."""
        count: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._counts[id] = count
        count.add_done_callback(lambda _: self._counts.pop(id, None))
        return count

    def receive(self, message: FromWorker) -> None:
        """Gives a message of the worker's to whoever waits for it, if anybody still does."""
        match message:
            case Step():
                for output in message.outputs:
                    if output.finish is not None:
                        self._release(output.id)
                    if (inbox := self._open.get(output.id)) is not None:
                        inbox.put(output)
            case Rejected():
                self._release(message.id)
                self._fail(message.id, self._error(message))
            case Dropped():
                self._release(message.id)
            case Counted():
                count = self._counts.get(message.id)
                if count is not None and not count.done():
                    count.set_result(message.tokens)

    def abandon(self, why: Callable[[], PolyrouteError]) -> None:
        """The worker is gone or going: ends whatever is not complete, each with an error of its own."""
        for id in [*self._open, *self._counts]:
            self._fail(id, why())
        self._held.clear()
        self._on_busy(False)

    def _fail(self, id: int, error: PolyrouteError) -> None:
        if (inbox := self._open.get(id)) is not None:
            inbox.fail(error)
        elif (count := self._counts.get(id)) is not None and not count.done():
            count.set_exception(error)

    def _release(self, id: int) -> None:
        self._held.discard(id)
        if not self._held:
            self._on_busy(False)

    def _error(self, rejected: Rejected) -> PolyrouteError:
        match rejected.kind:
            case "too_long":
                return PromptTooLong(rejected.field, rejected.message)
            case "invalid":
                return InvalidArgument(rejected.field, rejected.message, quoted=rejected.quoted)
            case "unsupported":
                return Unsupported(rejected.field, rejected.message)
            case "out_of_memory":
                return Overloaded(f"`{self._model}`: {rejected.message}", retry_after_s=_MEMORY_RETRY_S)
            case "failed":
                return ModelFailed(f"`{self._model}` failed on this request: {rejected.message}")
