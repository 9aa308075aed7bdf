"""Questions for a thread, taken together: what comes while it is busy goes in one piece, one way there and back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeAlias, TypeVar

AskedT = TypeVar("AskedT")
ToldT = TypeVar("ToldT")

Answered: TypeAlias = "Future[Sequence[ToldT | Exception]]"


class Together(Generic[AskedT, ToldT]):
    """Hands what is asked to `submit`, at most `most` at a time; nobody waits for company while the thread is idle.

    What is submitted tells an answer, or an error, for each in its order; or it raises, which all of them get. Used on
    one event loop; who stops waiting for an answer changes nothing for the others.
    """

    def __init__(self, submit: Callable[[Sequence[AskedT]], Answered[ToldT]], most: int) -> None:
        self._submit = submit
        self._most = most
        self._waiting: deque[tuple[AskedT, asyncio.Future[ToldT]]] = deque()
        self._going: list[tuple[AskedT, asyncio.Future[ToldT]]] = []

    def __repr__(self) -> str:
        return f"<Together waiting={len(self._waiting)} going={len(self._going)}>"

    def __len__(self) -> int:
        """Questions without an answer."""
        return len(self._waiting) + len(self._going)

    async def ask(self, asked: AskedT) -> ToldT:
        """The answer to one question."""
        told: asyncio.Future[ToldT] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, told))
        self._go()
        return await told

    async def settled(self) -> None:
        """Waits until all that was asked so far has its answer."""
        left = [told for _, told in (*self._going, *self._waiting) if not told.done()]
        if left:
            await asyncio.wait(left)

    def _go(self) -> None:
        """Hands on the next questions, where the thread is idle and takes any."""
        while self._waiting and not self._going:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            try:
                done = self._submit([asked for asked, _ in batch])
            except Exception as error:  # noqa: BLE001 - a thread that takes nothing any more is what each asked
                self._tell(batch, [error] * len(batch))
            else:
                self._follow(batch, done)

    def _follow(self, batch: list[tuple[AskedT, asyncio.Future[ToldT]]], done: Answered[ToldT]) -> None:
        self._going = batch
        loop = asyncio.get_running_loop()

        def returned(answers: Answered[ToldT]) -> None:
            with suppress(RuntimeError):  # the loop has ended, and so has everybody who asked
                loop.call_soon_threadsafe(self._returned, batch, answers)

        done.add_done_callback(returned)

    def _returned(self, batch: list[tuple[AskedT, asyncio.Future[ToldT]]], answers: Answered[ToldT]) -> None:
        self._going = []
        if answers.cancelled():
            self._tell(batch, [RuntimeError("the thread has ended")] * len(batch))
        elif (error := answers.exception()) is not None:
            self._tell(batch, [error] * len(batch))
        else:
            self._tell(batch, answers.result())
        self._go()

    @staticmethod
    def _tell(batch: list[tuple[AskedT, asyncio.Future[ToldT]]], answers: Sequence[ToldT | BaseException]) -> None:
        for (_, told), answer in zip(batch, answers, strict=True):
            if told.done():  # whoever asked has stopped waiting
                continue
            if isinstance(answer, BaseException):
                told.set_exception(answer)
            else:
                told.set_result(answer)
