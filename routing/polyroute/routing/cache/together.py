"""Questions for a thread, taken together: what comes while it is busy goes in one piece, one way there and back."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeAlias, TypeVar

from polyroute.routing.cache.gathering import Gathering

AskedT = TypeVar("AskedT")
ToldT = TypeVar("ToldT")

_Batch: TypeAlias = "list[tuple[AskedT, asyncio.Future[ToldT]]]"


class Together(Generic[AskedT, ToldT]):
    """Has a thread of its own do the `work`, for at most `most` questions at a time, gathered while the event loop is
    busy: to wake a thread, and to hand it the interpreter and take that back, costs as much as what it is woken for.
    An executor would do, for twice the processor time of each way.

    `work` tells an answer, or an error, for each question in its order; or it raises, which all of them get. Used on
    one event loop; who stops waiting for an answer changes nothing for the others.
    """

    def __init__(
        self,
        work: Callable[[Sequence[AskedT]], Sequence[ToldT | Exception]],
        most: int,
        thread_name: str,
    ) -> None:
        self._work = work
        self._most = most
        self._waiting: deque[tuple[AskedT, asyncio.Future[ToldT]]] = deque()
        self._going: _Batch[AskedT, ToldT] = []
        self._gathering = Gathering(self._go, lambda: len(self._waiting) >= most)
        self._steps: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=thread_name, daemon=True)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Together waiting={len(self._waiting)} going={len(self._going)}>"

    def __len__(self) -> int:
        """Questions without an answer."""
        return len(self._waiting) + len(self._going)

    def ask(self, asked: AskedT) -> asyncio.Future[ToldT]:
        """The answer to one question, once it is there; raises `RuntimeError` where no thread can be had for now."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[ToldT] = loop.create_future()
        if self._closed:
            told.set_exception(_ended())
            return told
        if self._thread.ident is None:
            self._thread.start()
        self._waiting.append((asked, told))
        if not self._going:
            self._gathering.begin()
        return told

    async def settled(self) -> None:
        """Waits until all that was asked so far has its answer."""
        left = [told for _, told in (*self._going, *self._waiting) if not told.done()]
        if left:
            await asyncio.wait(left)

    def close(self, last: Callable[[], None]) -> Future[None]:
        """Takes no more, and leaves nobody waiting; done once what is going has come back, and then `last`, in the same
        thread. A second time changes nothing."""
        done: Future[None] = Future()
        self._tell(self._waiting, [_ended()] * len(self._waiting))
        self._waiting.clear()
        if self._closed or self._thread.ident is None:
            done.set_result(None)
        else:
            self._steps.put(partial(_finish, last, done))
            self._steps.put(None)
        self._closed = True
        return done

    def _go(self) -> None:
        """Hands on the next questions to the idle thread."""
        waiting = self._waiting
        self._going = [waiting.popleft() for _ in range(min(self._most, len(waiting)))]
        if self._going:  # there are none where it was closed meanwhile
            self._steps.put(partial(self._answer, asyncio.get_running_loop(), self._going))

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            step()
            del step  # what it was asked is kept by nobody while the thread is idle

    def _answer(self, loop: asyncio.AbstractEventLoop, batch: _Batch[AskedT, ToldT]) -> None:
        answers: Sequence[ToldT | BaseException]
        try:
            answers = self._work([asked for asked, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, who asked gets it
            answers = [error] * len(batch)
        except BaseException as error:  # noqa: BLE001 - and no future may hold it, for it would end the event loop
            answers = [RuntimeError(f"the thread was to end: {error}")] * len(batch)
        with suppress(RuntimeError):  # the loop has ended, and so has everybody who asked
            loop.call_soon_threadsafe(self._returned, batch, answers)

    def _returned(self, batch: _Batch[AskedT, ToldT], answers: Sequence[ToldT | BaseException]) -> None:
        self._going = []
        self._tell(batch, answers)
        if self._waiting:
            self._gathering.begin()

    @staticmethod
    def _tell(
        batch: Iterable[tuple[AskedT, asyncio.Future[ToldT]]],
        answers: Sequence[ToldT | BaseException],
    ) -> None:
        for (_, told), answer in zip(batch, answers, strict=True):
            if told.done():  # whoever asked has stopped waiting
                continue
            if isinstance(answer, BaseException):
                told.set_exception(answer)
            else:
                told.set_result(answer)


def _finish(last: Callable[[], None], done: Future[None]) -> None:
    try:
        last()
    except BaseException as error:  # noqa: BLE001 - for who closes
        done.set_exception(error)
    else:
        done.set_result(None)


def _ended() -> RuntimeError:
    return RuntimeError("the thread has ended")
