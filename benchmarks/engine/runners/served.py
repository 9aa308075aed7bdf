"""Polyroute's engine as the router meets it: over `LocalBackend` and its worker process, text in and text out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

from benchmarks.engine.runner import Asked, Options, Runner, main
from benchmarks.engine.served import answer, backend, texts
from polyroute.backends.local.backend import LocalBackend
from polyroute.core.event import Usage


class Served:
    """Reads all answers of a load at once.

    A piece of text counts as a token when it comes. Tokens that came joined with others or without text, which the
    usage tells of, are counted at the answer's end.
    """

    cached = 0
    note = "over the worker process; pieces of text, not tokens, have the times"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._stack = AsyncExitStack()
        self._loop = asyncio.Runner()
        self._backend = self._loop.run(self._start())

    def run(self, asks: list[Asked], submitted: Callable[[int], None], token: Callable[[int], None]) -> None:
        """See `Runner`."""
        prompts = texts(Path(self._options.folder), [ask.prompt for ask in asks])
        self._loop.run(self._run(list(zip(asks, prompts, strict=True)), submitted, token))

    async def _start(self) -> LocalBackend:
        options = self._options
        context = backend(Path(options.folder), options.precision, options.threads, options.sequences)
        return await self._stack.enter_async_context(context)

    async def _run(
        self, asks: list[tuple[Asked, str]], submitted: Callable[[int], None], token: Callable[[int], None]
    ) -> None:
        made = 0
        progress = asyncio.Condition()

        async def one(ask: Asked, prompt: str) -> None:
            nonlocal made
            async with progress:
                await progress.wait_for(lambda: made >= ask.after)
            submitted(ask.index)
            seen = 0
            async with aclosing(answer(self._backend, prompt, ask.tokens)) as pieces:
                async for piece in pieces:
                    new = 1
                    if isinstance(piece, Usage):
                        new = piece.completion_tokens - seen
                        self.cached += piece.cached_prompt_tokens
                        if piece.prompt_tokens != len(ask.prompt):
                            raise RuntimeError(f"{len(ask.prompt)} tokens became {piece.prompt_tokens} on the way")
                    for _ in range(new):
                        token(ask.index)
                    seen += new
                    made += new
                    async with progress:
                        progress.notify_all()

        async with asyncio.TaskGroup() as group:
            for ask, prompt in asks:
                group.create_task(one(ask, prompt))


def start(options: Options) -> Runner:
    """Starts the worker process."""
    return Served(options)


if __name__ == "__main__":
    main(start)
