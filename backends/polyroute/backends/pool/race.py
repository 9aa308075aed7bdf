"""Hedging: a second attempt beside a slow first one, of which the one that answers first is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from polyroute.backends.pool.attempt import Try
from polyroute.core.event import Event


async def race(
    first: Try,
    delay_s: float,
    spare: Callable[[], Try | None],
    lost: Callable[[Try, BaseException], None],
    beaten: Callable[[Try], None],
) -> tuple[Try, Event]:
    """The attempt that begins to answer first, and its first event; the other one is cancelled and closed.

    `spare` is asked for a second attempt once the first has been silent for `delay_s` seconds (J. Dean and
    L. Barroso, "The Tail at Scale", 2013, "Hedged requests"). `lost` is told of each that fails, `beaten` of
    the one that is still silent when the other answers. Raises the error of the last one where none answers.
    """
    running = {_asked(first): first}
    winner: Try | None = None
    try:
        done, _ = await asyncio.wait(running, timeout=delay_s)
        if not done and (second := spare()) is not None:
            running[_asked(second)] = second
        while True:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in list(running):  # all that failed are told of before one wins
                if task in done and (error := task.exception()) is not None:
                    lost(running.pop(task), error)
                    if not running:
                        raise error
            won = next((task for task in running if task in done), None)
            if won is not None:
                winner = running.pop(won)
                for loser in running.values():
                    beaten(loser)
                await _leave(running)
                return winner, won.result()
    except BaseException:
        if winner is not None:  # left in the moment in which it had won
            await winner.close()
        await _leave(running)
        raise


def _asked(attempt: Try) -> asyncio.Task[Event]:
    return asyncio.create_task(attempt.first(), name=f"attempt at {attempt.replica.name}")


async def _leave(running: dict[asyncio.Task[Event], Try]) -> None:
    """Cancels attempts and has them closed, so that their peers stop: also where this is cancelled meanwhile."""
    if not running:
        return
    for task in running:
        task.cancel()
    try:
        await asyncio.wait(running)
    finally:
        for task, attempt in running.items():
            if task.done():  # with an answer after all, or cancelled before it began: else it is closed already
                await attempt.close()
