"""Waits that others can cut short."""

from __future__ import annotations

import asyncio
from typing import cast


class Wait:
    """The current task, from the making of this on, waits for something until it is there, or until this is cut.

    It does what `asyncio.timeout` does, for less, and leaves it to others to say when it is time. Once it is over the
    same task may wait `again`, for what comes next; what it does in between is left alone.
    """

    __slots__ = ("_cancelling", "_cut", "_on", "_task")

    def __init__(self) -> None:
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancelling, self._on, self._cut = self._task.cancelling(), True, False

    def again(self) -> None:
        """The task waits once more, from here on."""
        self._cancelling, self._on = self._task.cancelling(), True

    def cut(self) -> None:
        """Cancels what is waited for, if anything is."""
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
