"""A peer that has many models, each of which says what a test has it say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from tests.integration.peers import SSE, Connection, PeerRequest, Play, ScriptedPeer, chunk, data, head, models, said

CHAT: Final = "/v1/chat/completions"
MODELS: Final = ("team/plain", "team/terse", "team/wordy", "team/brittle", "team/cached")
"""What the peer lists. Each says its name and the question, unless a test has it say something else."""


@dataclass(slots=True)
class Peer:
    """An OpenAI-compatible peer on a port of its own; `plays` says what to do, by model."""

    scripted: ScriptedPeer
    plays: dict[str, Play] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.scripted.url

    @property
    def asked(self) -> list[PeerRequest]:
        """The requests for an answer that came, oldest first."""
        return self.scripted.calls(CHAT)

    def says(self, model: str, *parts: str, pause_s: float = 0.0) -> None:
        """From now on `model` answers with these parts."""
        self.plays[model] = speaking(parts, pause_s=pause_s)

    def reset(self) -> None:
        """Every model says what it says by itself."""
        self.plays.clear()
        self.scripted.requests.clear()

    async def answer(self, connection: Connection, request: PeerRequest) -> None:
        asked = request.json
        play = self.plays.get(asked["model"]) or speaking(by_itself(asked))
        await play(connection, request)


def by_itself(asked: dict[str, Any]) -> list[str]:
    """The parts of what a model says that no test has given anything to say."""
    question = asked["messages"][-1]["content"]
    return [f"{word} " for word in f"{asked['model']} was asked: {question}".split(" ")]


def speaking(
    parts: Iterable[str], *, pause_s: float = 0.0, ends: bool = True, begun: bool = False, stays: bool = False
) -> Play:
    """Answers with these parts, streamed or whole as it was asked; without `ends` it waits until the caller leaves.

    A stream that `stays` is left open for another that has `begun` already.
    """
    told = list(parts)

    async def play(connection: Connection, request: PeerRequest) -> None:
        if not request.json.get("stream"):
            message = {"role": "assistant", "content": "".join(told)}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            usage = {"prompt_tokens": 3, "completion_tokens": len(told)}
            body = orjson.dumps({"choices": choices, "usage": usage})
            await connection.send(head("application/json", length=len(body)), body)
            return
        if not begun:
            await connection.send(head(SSE))
        for part in told:
            await connection.send(chunk(said(part)))
            if pause_s:
                await asyncio.sleep(pause_s)
        if stays:
            return
        if not ends:
            await connection.gone.wait()
            return
        await connection.send(chunk(ended(len(told))), chunk(b""))

    return play


def ended(tokens: int) -> bytes:
    """The end of a streamed answer of so many tokens."""
    finish = data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = data({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})
    return finish + usage + data(b"[DONE]")


async def listening(names: Iterable[str] = MODELS) -> Peer:
    """A peer with these models that listens."""
    peer = Peer(ScriptedPeer())
    peer.scripted.plays = {"/v1/models": models(*({"id": name} for name in names)), CHAT: peer.answer}
    await peer.scripted.listen()
    return peer
