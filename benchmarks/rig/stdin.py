"""How servers of ours that are started for a benchmark are told to end."""

from __future__ import annotations

import asyncio
import sys
import threading


async def end_of_input() -> None:
    """Waits until standard input has ended."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()
