"""When the parts of an answer came, so that a stored one can be replayed at its own pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from msgspec.structs import replace

from polyroute.core.errors import DeadlineExceeded
from polyroute.core.event import Event, Started
from polyroute.routing.cache.codec import StoredAnswer


class Gaps:
    """Notes when the parts of an answer come, apart from the time for which whoever takes them holds it up."""

    __slots__ = ("_before_ms", "_begun", "_clock", "_gaps_ms", "_held")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = self._held = clock()
        self._before_ms = 0
        self._gaps_ms: list[int] = []

    def note(self) -> None:
        """A part has come."""
        now_ms = int((self._clock() - self._begun) * 1000)  # of the whole, so that rounding does not add up
        self._gaps_ms.append(now_ms - self._before_ms)
        self._before_ms = now_ms

    def held(self) -> None:
        """From here on nobody waits for the next part."""
        self._held = self._clock()

    def asked(self) -> None:
        """The next part is waited for."""
        self._begun += self._clock() - self._held

    def since(self, queue_s: float) -> tuple[int, ...]:
        """Milliseconds before each part; the first counts from the end of the queue."""
        first, *others = self._gaps_ms
        return (max(0, first - int(queue_s * 1000)), *others)


async def paced(answer: StoredAnswer, started: Started, deadline: float | None) -> AsyncGenerator[Event, None]:
    """The events of a stored answer, each no sooner than it came when the answer was generated.

    `deadline` is on the clock of `time.monotonic`, in seconds; raises `DeadlineExceeded` when it passes. The time that
    was waited stands in `Finished` as the backend's.
    """
    gaps_ms = answer.gaps_ms or (0,) * (len(answer.tokens) + 1)
    due = time.monotonic() + gaps_ms[0] / 1000
    waited_s = await _until(due, deadline, answer.model)
    yield started
    for token, gap_ms in zip(answer.tokens, gaps_ms[1:], strict=True):
        yield token
        due += gap_ms / 1000
        waited_s += await _until(due, deadline, answer.model)
    yield replace(answer.finished, timing=replace(answer.finished.timing, backend_s=waited_s))


async def _until(due: float, deadline: float | None, model: str) -> float:
    """Waits until `due`; returns for how long, in seconds."""
    begun = time.monotonic()
    if deadline is not None and deadline < due:
        await asyncio.sleep(max(0.0, deadline - begun))
        raise DeadlineExceeded(f"`{model}`: the caller's deadline passed before the answer was complete")
    if due <= begun:
        return 0.0
    await asyncio.sleep(due - begun)
    return time.monotonic() - begun
