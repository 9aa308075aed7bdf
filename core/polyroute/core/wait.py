"""A wait that others can cut short."""

from __future__ import annotations

import asyncio
from typing import cast


class Wait:
    """The current task, from the making of this on, waits for something until it is there, or until this is cut.

    It does what `asyncio.timeout` does, for less, and leaves it to others to say when it is time.
    """

    __slots__ = ("_cancelling", "_cut", "_task")

    def __init__(self) -> None:
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancelling, self._cut = self._task.cancelling(), False

    def cut(self) -> None:
        """Cancels what is waited for."""
        if not self._cut:
            self._cut = True
            self._task.cancel()

    def was_cut(self) -> bool:
        """To be asked once, when the wait is over: whether it was cut, by this and no one else.

        The task is no longer cancelled then, whatever the wait has ended with.
        """
        return self._cut and self._task.uncancel() <= self._cancelling
