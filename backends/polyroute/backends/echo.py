"""A model that repeats what it is told: a scriptable backend for tests, examples and trying out a configuration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from polyroute.core.backend import BackendStatus, Facts, ModelState, ReplicaStatus, TokenCount
from polyroute.core.call import Call
from polyroute.core.config import ModelConfig
from polyroute.core.errors import DeadlineExceeded, ModelFailed
from polyroute.core.event import Event, Finished, FinishReason, Route, Started, Token, Usage
from polyroute.core.request import Request

Pause: TypeAlias = Callable[[int], Awaitable[object]]
"""Awaited before the token of the given place (from 0; the number of tokens before the end of the answer)."""


@dataclass(frozen=True, slots=True)
class Script:
    """What one call is answered with.

    `texts` are the tokens; None echoes the input word by word. `error` is raised in place of the token at
    `error_after` (0 is before the answer begins). `gate` is waited for before the token at `gate_after`, so that an
    unset event hangs the call there. `pause` is awaited before every token.
    """

    texts: Sequence[str] | None = None
    error: Exception | None = None
    error_after: int = 0
    gate: asyncio.Event | None = None
    gate_after: int = 0
    pause: Pause | None = None
    reason: FinishReason | None = None
    matched_stop: str | None = None
    usage: Usage | None = None
    upstream: Route | None = None


Scripting: TypeAlias = Script | Callable[[Call], Script]


class EchoBackend:
    """Answers from a script, and remembers what became of each call. Implements `polyroute.core.backend.Backend`.

    By default the answer is the prompt, or the last message, cut to `max_tokens` words. `script`, `state` and
    `detail` may be set at any time, and hold for the calls that come afterwards.
    """

    def __init__(
        self,
        model: str,
        *,
        version: str = "echo-1",
        replica: str = "echo",
        script: Scripting | None = None,
        state: ModelState = ModelState.WARM,
        context_length: int = 0,
    ) -> None:
        self.model = model
        self.version = version
        self.replica = replica
        self.script: Scripting = script or Script()
        self.state = state
        self.detail = ""
        self.context_length = context_length
        self.ready_since = 0.0
        self.load_error: Exception | None = None
        self.calls: list[Call] = []
        """Every call that was begun, in order."""
        self.open = 0
        """Calls being answered now."""
        self.completed = 0
        """Calls whose whole answer was taken."""
        self.failed = 0
        """Calls that ended with an error."""
        self.closed_early = 0
        """Calls that the caller left before their end."""
        self.loads = 0
        self.unloads: list[float] = []
        """The grace of each unload, in seconds."""
        self.adopted: list[ModelConfig] = []
        """Every configuration taken on by a reload, in order."""
        self.started = False
        self.stopped = False

    def __repr__(self) -> str:
        return f"<EchoBackend {self.model} {self.replica} {self.state.name} open={self.open} calls={len(self.calls)}>"

    async def start(self) -> None:
        """Nothing to reach: the state is the one that was set."""
        self.started = True

    async def load(self) -> None:
        """Becomes warm, or raises `load_error` where that is set."""
        self.loads += 1
        if self.load_error is not None:
            self.state, self.detail = ModelState.FAILED, str(self.load_error)
            raise self.load_error
        self.state, self.detail = ModelState.WARM, ""

    async def unload(self, grace_s: float) -> None:
        """Becomes cold at once."""
        self.unloads.append(grace_s)
        self.state = ModelState.COLD

    async def stop(self) -> None:
        """Becomes cold for good."""
        self.stopped = True
        self.state = ModelState.COLD

    def adopt(self, config: ModelConfig) -> None:
        """Takes note."""
        self.adopted.append(config)

    def stream(self, call: Call) -> AsyncIterator[Event]:
        """Answers as the script says; raises the script's error, or `ModelFailed` in the state FAILED."""
        return self._stream(call)

    async def _stream(self, call: Call) -> AsyncGenerator[Event, None]:
        script = self.script(call) if callable(self.script) else self.script
        self.calls.append(call)
        self.open += 1
        ended = False
        try:
            if self.state is ModelState.FAILED:
                raise ModelFailed(self.detail or f"`{self.model}` has failed")
            async with aclosing(self._answer(call, script)) as events:
                async for event in events:
                    ended = isinstance(event, Finished)
                    if ended:
                        self.completed += 1
                    yield event
        except Exception:
            ended = True
            self.failed += 1
            raise
        finally:
            self.open -= 1
            if not ended:
                self.closed_early += 1

    async def _answer(self, call: Call, script: Script) -> AsyncGenerator[Event, None]:
        words = _words(call.request)
        texts, limit = words, call.request.sampling.max_tokens
        if script.texts is not None:
            texts = list(script.texts)
        cut = limit is not None and limit < len(texts)
        texts = texts[:limit]
        for place, text in enumerate(texts):
            await self._before(place, call, script)
            if place == 0:
                yield Started(self._route(script))
            yield Token(text)
        await self._before(len(texts), call, script)
        if not texts:
            yield Started(self._route(script))
        yield Finished(
            script.reason or (FinishReason.LENGTH if cut else FinishReason.STOP),
            usage=script.usage or Usage(prompt_tokens=len(words), completion_tokens=len(texts)),
            matched_stop=script.matched_stop,
            seed=call.request.sampling.seed,
        )

    async def _before(self, place: int, call: Call, script: Script) -> None:
        if script.pause is not None:
            await script.pause(place)
        if script.gate is not None and place == script.gate_after:
            await script.gate.wait()
        if script.error is not None and place == script.error_after:
            raise script.error
        if call.remaining_s(time.monotonic()) == 0:
            raise DeadlineExceeded(f"`{self.model}`: the deadline has passed")

    def _route(self, script: Script) -> Route:
        return Route(model=self.model, version=self.version, replica=self.replica, upstream=script.upstream)

    async def count_tokens(self, call: Call) -> TokenCount:
        """Counts words."""
        return TokenCount(len(_words(call.request)), self.context_length)

    def facts(self) -> Facts:
        """The state that was set."""
        return Facts(self.state, self.version, greedy_default=True, ready_since=self.ready_since)

    def status(self) -> BackendStatus:
        """The state that was set, with this one replica."""
        return BackendStatus(
            self.state,
            self.detail,
            self.version,
            self.context_length,
            greedy_default=True,
            ready_since=self.ready_since,
            replicas=(ReplicaStatus(self.replica, self.state, self.detail, self.open, self.version),),
        )


def _words(request: Request) -> list[str]:
    """The prompt, or the last message, cut so that the parts concatenate to it again."""
    text = request.prompt if request.prompt is not None else (request.messages or [])[-1].content
    words = text.split(" ")
    return [f"{word} " for word in words[:-1]] + ([words[-1]] if words[-1] else [])
