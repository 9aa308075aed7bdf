"""The one request of this benchmark, with a number in it, and the answer that it gets."""

from __future__ import annotations

import json
from typing import Final

from polyroute.core.event import Finished, FinishReason, Token, Usage
from polyroute.core.request import Message, Request, Sampling
from polyroute.v1 import inference_pb2 as pb

MODEL: Final = "m"
SLOT: Final = "##########"
"""Where the number stands, in as many digits."""
GENERATE: Final = "/polyroute.v1.InferenceService/Generate"
CHAT: Final = "/v1/chat/completions"

_QUESTION: Final = f"What is the name of star number {SLOT} in the catalogue, and how far away is it?"
_WORD: Final = " light"


def question(number: int) -> str:
    """The user's message, for one of the keys."""
    return _QUESTION.replace(SLOT, f"{number:0{len(SLOT)}}")


def request(number: int) -> Request:
    """The request as the router sees it, whichever way it came."""
    return Request(model=MODEL, messages=(Message("user", question(number)),), sampling=Sampling(temperature=0))


def filled(body: bytes, number: int) -> bytes:
    """A body with the number that was left open."""
    return body.replace(SLOT.encode(), f"{number:0{len(SLOT)}}".encode())


def grpc_body() -> bytes:
    """A `GenerateRequest`, the number left open."""
    messages = pb.MessageList(messages=[pb.Message(role="user", content=_QUESTION)])
    return pb.GenerateRequest(model=MODEL, messages=messages, temperature=0).SerializeToString()


def http_body() -> bytes:
    """A body for `CHAT`, the number left open."""
    return json.dumps({"model": MODEL, "messages": [_message("user", _QUESTION)], "temperature": 0}).encode()


def answer(tokens: int) -> tuple[tuple[Token, ...], Finished]:
    """A stored answer of so many tokens."""
    return (Token(_WORD),) * tokens, Finished(FinishReason.STOP, Usage(24, tokens))


def peer_answer(tokens: int) -> bytes:
    """The same from an OpenAI-compatible peer, whole."""
    choice = {"index": 0, "message": _message("assistant", _WORD * tokens), "finish_reason": "stop"}
    return json.dumps({**_frame("chat.completion"), "choices": [choice], "usage": _usage(tokens)}).encode()


def peer_stream(tokens: int) -> bytes:
    """The same from an OpenAI-compatible peer, as server-sent events."""
    frame = _frame("chat.completion.chunk")
    choices = [{"index": 0, "delta": {"content": _WORD}, "finish_reason": None}] * tokens
    choices += [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    chunks = [{**frame, "choices": [choice]} for choice in choices]
    chunks += [{**frame, "choices": [], "usage": _usage(tokens)}]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _frame(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000, "model": MODEL}


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 24, "completion_tokens": tokens, "total_tokens": 24 + tokens}
