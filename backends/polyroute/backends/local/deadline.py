"""Waits until a call's deadline, and no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from polyroute.core.call import Call
from polyroute.core.errors import DeadlineExceeded

_T = TypeVar("_T")


async def in_time(call: Call, wait: Awaitable[_T], when: str) -> _T:
    """What `wait` comes to; raises `DeadlineExceeded` at the call's deadline, which passed `when`, in words."""
    remaining_s = call.remaining_s(time.monotonic())
    try:
        async with asyncio.timeout(remaining_s):
            return await wait
    except TimeoutError:
        raise DeadlineExceeded(f"the deadline passed {when}") from None
