"""Whole answers as `/v1/chat/completions` writes them; of a stored one, what is the same each time is written once."""

from __future__ import annotations

import time
from typing import Final

import orjson

from polyroute.core.event import Whole
from polyroute.server.answers import Answer, whole_answer
from polyroute.server.forms import form_of
from polyroute.server.rest.openai_shapes import (
    FINISH,
    AssistantMessage,
    ChatAnswer,
    chat_logprobs,
    usage,
    whole_tool_call,
)

_OPEN: Final = b'{"id":"","object":"chat.completion","created":0,'


def chat_answer(answer: Answer, name: str, with_logprobs: bool) -> bytes:
    """An answer as JSON, with `name` as its ID."""
    return _named(_rest(answer, with_logprobs), name, answer.created)


def chat_answer_again(whole: Whole, name: str, with_logprobs: bool) -> bytes:
    """The same of a stored answer."""
    route = whole.started.route
    kind = ("chat", "logprobs" if with_logprobs else "", route.model, route.version)
    (rest,) = form_of(whole, kind, lambda: (_rest(whole_answer(whole), with_logprobs),))
    return _named(rest, name, time.time())


def _named(rest: bytes, name: str, created: float) -> bytes:
    return b'{"id":%s,"object":"chat.completion","created":%d,%s' % (orjson.dumps(name), created, rest)


def _rest(answer: Answer, with_logprobs: bool) -> bytes:
    """The answer without its beginning, which alone differs from one time that it is given to the next."""
    return orjson.dumps(_shaped(answer, with_logprobs)).removeprefix(_OPEN)


def _shaped(answer: Answer, with_logprobs: bool) -> ChatAnswer:
    message: AssistantMessage = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool_calls:
        message["tool_calls"] = [whole_tool_call(called) for called in answer.tool_calls]
        message["content"] = answer.text or None
    return {
        "id": "",
        "object": "chat.completion",
        "created": 0,
        "model": answer.route.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": chat_logprobs(answer.logprobs) if with_logprobs else None,
                "finish_reason": FINISH[answer.end.reason],
                "stop_reason": answer.end.matched_stop,
            }
        ],
        "usage": usage(answer.end.usage),
        "system_fingerprint": answer.route.version or None,
    }
