"""What is asked of a Redis, asked together: one question costs the client as much as ten of its entries."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeAlias

from polyroute.routing.cache.gathering import Gathering
from polyroute.routing.cache.redis_client import Client

MOST_AT_ONCE: Final = 2
"""Questions under way: a large answer, which takes long, leaves a way beside it."""
MOST_TOGETHER: Final = 16
"""Most entries in one question: all of them are in memory at once, and each may be as large as an answer may."""

_Waiting: TypeAlias = tuple[str, "asyncio.Future[bytes | None]"]


class Reads:
    """Reads entries by their names: what is asked for while the event loop is busy, or while there is no way free, goes
    together in one question.

    A question has `limit_s()` seconds, whoever waits for it. Used on one event loop; who stops waiting changes nothing
    for the others.
    """

    def __init__(self, client: Client, limit_s: Callable[[], float]) -> None:
        self._client = client
        self._limit_s = limit_s
        self._waiting: deque[_Waiting] = deque()
        self._asking: set[asyncio.Task[None]] = set()
        self._gathering = Gathering(self._go, lambda: len(self._waiting) >= MOST_TOGETHER)

    def __repr__(self) -> str:
        return f"<Reads waiting={len(self._waiting)} asking={len(self._asking)}>"

    def get(self, name: str) -> asyncio.Future[bytes | None]:
        """The entry of that name, once it is there; None for what is none, or no string of bytes."""
        told: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((name, told))
        if len(self._asking) < MOST_AT_ONCE:
            self._gathering.begin()
        return told

    async def close(self) -> None:
        """Ends what is under way; nobody is left waiting."""
        _tell(self._waiting, _closed())
        self._waiting.clear()
        asking = tuple(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _go(self) -> None:
        while self._waiting and len(self._asking) < MOST_AT_ONCE:
            together = [self._waiting.popleft() for _ in range(min(MOST_TOGETHER, len(self._waiting)))]
            if wanted := [each for each in together if not each[1].done()]:  # others have stopped waiting
                task = asyncio.get_running_loop().create_task(self._ask(wanted))
                self._asking.add(task)
                task.add_done_callback(partial(self._asked, wanted))

    def _asked(self, wanted: Sequence[_Waiting], task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        _tell(wanted, _closed())  # those that have no answer: the question was ended, perhaps before it was put
        if self._waiting:
            self._gathering.begin()

    async def _ask(self, wanted: Sequence[_Waiting]) -> None:
        try:
            async with asyncio.timeout(self._limit_s()):
                entries = await self._client.mget([name for name, _ in wanted])
        except Exception as error:  # noqa: BLE001 - whatever it is, who asked gets it
            _tell(wanted, error)
        else:
            for (_, told), entry in zip(wanted, entries, strict=True):
                if not told.done():
                    told.set_result(entry if isinstance(entry, bytes) else None)


def _tell(waiting: Iterable[_Waiting], error: Exception) -> None:
    for _, told in waiting:
        if not told.done():
            told.set_exception(error)


def _closed() -> ConnectionError:
    return ConnectionError("the tier is closed")
