"""The requests of the benchmarks over sockets: the peer in C answers them with as many words as they say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from polyroute.v1 import inference_pb2 as pb

MODEL: Final = "m"
GENERATE: Final = "/polyroute.v1.InferenceService/Generate"
STREAM_GENERATE: Final = "/polyroute.v1.InferenceService/StreamGenerate"
CHAT: Final = "/v1/chat/completions"

DRAWN: Final = "##########"
"""Where the load generator puts a number that it draws, in as many digits."""
UNIQUE: Final = "@@@@@@@@@@"
"""Where it puts one that no other request has, in as many digits."""

WORD: Final = " ~word"
"""Each word of an answer: the load generator counts the `~`."""
PROMPT_TOKENS: Final = 24


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: for so many words, whole or as a stream of them, which may come `pace_us` microseconds apart.

    `slot` stands in the question, `DRAWN` or `UNIQUE`. Temperature 0: an answer that may be cached.
    """

    words: int
    stream: bool = False
    pace_us: int = 0
    slot: str = DRAWN
    model: str = MODEL

    @property
    def question(self) -> str:
        """The user's message."""
        pace = f", one every {self.pace_us} us" if self.pace_us else ""
        return f"Star {self.slot} of the catalogue: where is it? Say so in {self.words} words{pace}."

    def grpc(self) -> bytes:
        """A `GenerateRequest`."""
        messages = pb.MessageList(messages=[pb.Message(role="user", content=self.question)])
        return pb.GenerateRequest(model=self.model, messages=messages, temperature=0).SerializeToString()

    def http(self) -> bytes:
        """A body for `CHAT`."""
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": self.question}]}
        body["temperature"] = 0
        if self.stream:
            body["stream"] = True
        return json.dumps(body).encode()

    def body(self, protocol: str) -> bytes:
        """The request over `grpc` or `http`."""
        return self.grpc() if protocol == "grpc" else self.http()

    def path(self, protocol: str) -> str:
        """Where it is sent over `grpc` or `http`."""
        if protocol == "http":
            return CHAT
        return STREAM_GENERATE if self.stream else GENERATE


def filled(body: bytes, number: int) -> bytes:
    """A body with a number in the place of those that were left open."""
    digits = f"{number:0{len(DRAWN)}}".encode()
    return body.replace(DRAWN.encode(), digits).replace(UNIQUE.encode(), digits)


def grpc_answer(words: int) -> bytes:
    """A `GenerateResponse` as the router gives one for a cached answer, for servers that only echo."""
    route = pb.Route(
        requested=MODEL,
        model=MODEL,
        version="1",
        deployment=MODEL,
        cache=pb.CACHE_RESULT_HIT,
        reasons=[f"`{MODEL}` is a model", "the answer was found in the cache, in memory"],
    )
    usage = pb.Usage(prompt_tokens=PROMPT_TOKENS, completion_tokens=words)
    answer = pb.GenerateResponse(
        text=WORD * words, finish_reason=pb.FINISH_REASON_STOP, usage=usage, route=route, request_id="0" * 32
    )
    answer.created.FromSeconds(1_700_000_000)
    return answer.SerializeToString()


def grpc_event() -> bytes:
    """A `GenerateEvent` with one word, for servers that only stream."""
    return pb.GenerateEvent(sequence=100, delta=pb.GenerateDelta(text=WORD)).SerializeToString()


def http_answer(words: int) -> bytes:
    """A chat completion, for servers that only echo."""
    choice = {"index": 0, "message": {"role": "assistant", "content": WORD * words}, "finish_reason": "stop"}
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": words, "total_tokens": PROMPT_TOKENS + words}
    frame = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": MODEL}
    return json.dumps(frame | {"choices": [choice], "usage": usage}).encode()
