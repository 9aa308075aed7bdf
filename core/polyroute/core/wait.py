"""Waits that others can cut short."""

from __future__ import annotations

import asyncio
from typing import cast


class Wait:
    """The current task, from the making of this on, waits for something until it is there, or until this is cut.

    It does what `asyncio.timeout` does, for less, and leaves it to others to say when it is time. Once it is over the
    same task may wait `again`, for what comes next; what it does in between is left alone.
    """

    __slots__ = ("_cancelling", "_cut", "_on", "_task", "_time_is_up")

    def __init__(self) -> None:
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancelling, self._on, self._cut = self._task.cancelling(), True, False
        self._time_is_up = False

    def again(self) -> None:
        """The task waits once more, from here on. Once its time is up, it has what is there without waiting."""
        self._cancelling, self._on = self._task.cancelling(), True
        if self._time_is_up:
            asyncio.get_running_loop().call_soon(self.cut)

    def cut(self) -> None:
        """Its time is up: cancels what is waited for, now or as soon as anything is."""
        self._time_is_up = True
        if self._on and not self._cut:
            self._cut = True
            self._task.cancel()

    def was_cut(self) -> bool:
        """To be asked once, when the wait is over: whether it was cut, by this and no one else.

        The task is no longer cancelled then, whatever the wait has ended with.
        """
        self._on = False
        if not self._cut:
            return False
        self._cut = False
        return self._task.uncancel() <= self._cancelling


class Limit:
    """A block within which the current task waits for `limit_s` seconds at most: then it raises `TimeoutError`.

    It does what `asyncio.timeout` does, for less.
    """

    __slots__ = ("_limit_s", "_timer", "_wait", "passed")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.passed = False
        """Whether the block has ended because its time was up."""

    def __enter__(self) -> None:
        self._wait = Wait()
        self._timer = asyncio.get_running_loop().call_later(self._limit_s, self._wait.cut)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._timer.cancel()
        if self._wait.was_cut() and isinstance(error, asyncio.CancelledError):
            self.passed = True
            raise TimeoutError from error
