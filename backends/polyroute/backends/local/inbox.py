"""What a worker has sent for one answer and its reader has not taken yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from polyroute.backends.local.messages import Begun, Finish, Output
from polyroute.core.errors import PolyrouteError
from polyroute.core.event import Token, TokenLogprob, Usage

MOST_OUTPUTS: Final = 1024
MOST_BYTES: Final = 64 * 1024
"""What may wait for a reader before the answer is paused: outputs, which are tokens or a few, and their size."""

_LOGPROB_BYTES: Final = 100  # of one entry, about


class Inbox:
    """Keeps one answer's outputs, joined, until they are taken: a slow reader holds up nobody.

    `hold` is called with True when too much waits, so that no more of the answer is made, and with False once it has
    been taken. What comes in between, which is what the worker had made before it heard of it, is kept too.
    """

    def __init__(self, hold: Callable[[bool], None], *, most_outputs: int = MOST_OUTPUTS) -> None:
        self._hold = hold
        self._most_outputs = most_outputs
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._bytes = 0
        self._arrived = asyncio.Event()
        self.held = False
        self.begun: Begun | None = None
        self.completion_tokens = 0
        self.finish: Finish | None = None
        self.error: PolyrouteError | None = None

    def __repr__(self) -> str:
        return f"<Inbox {len(self._text)} outputs, {self._bytes} bytes{', held' if self.held else ''}>"

    @property
    def unread_bytes(self) -> int:
        """About how much waits."""
        return self._bytes

    def put(self, output: Output) -> None:
        """Adds what a step brought."""
        self._text.append(output.text)
        self._logprobs.extend(output.logprobs)
        self._bytes += len(output.text) + sum(_LOGPROB_BYTES * (1 + len(entry.top)) for entry in output.logprobs)
        self.finish = output.finish
        self.completion_tokens = output.completion_tokens
        if output.begun is not None:
            self.begun = output.begun
        self._arrived.set()
        full = len(self._text) >= self._most_outputs or self._bytes >= MOST_BYTES
        if full and not self.held and self.finish is None:
            self.held = True
            self._hold(True)

    def fail(self, error: PolyrouteError) -> None:
        """Ends the answer with an error, unless it has ended before."""
        if self.finish is None and self.error is None:
            self.error = error
            self._arrived.set()

    async def wait(self) -> None:
        """Returns once there is something to take, or the answer has ended."""
        await self._arrived.wait()
        self._arrived.clear()

    def take(self) -> Token:
        """Everything that has come, as one token."""
        text, last = "".join(self._text), self.finish is not None
        token = Token(text=text, logprobs=tuple(self._logprobs), usage=self._usage(), last=last)
        self._text.clear()
        self._logprobs.clear()
        self._bytes = 0
        if self.held:
            self.held = False
            self._hold(False)
        return token

    def _usage(self) -> Usage | None:
        begun = self.begun
        return None if begun is None else Usage(begun.prompt_tokens, self.completion_tokens, begun.cached_prompt_tokens)
