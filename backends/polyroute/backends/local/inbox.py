"""What a worker has sent for one answer and its reader has not taken yet."""

from __future__ import annotations

import asyncio

from polyroute.backends.local.messages import Finish, Output
from polyroute.core.errors import PolyrouteError
from polyroute.core.event import Token, TokenLogprob


class Inbox:
    """Keeps one answer's outputs, joined, until they are taken: a slow reader holds up nobody.

    Bounded by the answer's own length, which `max_tokens` and the model's context bound.
    """

    def __init__(self) -> None:
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._arrived = asyncio.Event()
        self.finish: Finish | None = None
        self.error: PolyrouteError | None = None

    def put(self, output: Output) -> None:
        """Adds what a step brought."""
        self._text.append(output.text)
        self._logprobs.extend(output.logprobs)
        self.finish = output.finish
        self._arrived.set()

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
        token = Token(text="".join(self._text), logprobs=tuple(self._logprobs))
        self._text.clear()
        self._logprobs.clear()
        return token
