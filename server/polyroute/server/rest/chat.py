"""`POST /v1/chat/completions`, whole and streamed."""

from __future__ import annotations

import time

from aiohttp import web

from polyroute.core.event import Finished, Route, Token
from polyroute.routing.gateway import Gateway
from polyroute.server.answers import answered
from polyroute.server.rest.asked import Asked, KnownBodies
from polyroute.server.rest.chat_answer import chat_answer, chat_answer_again
from polyroute.server.rest.chat_body import ChatBody
from polyroute.server.rest.failures import FailureBody
from polyroute.server.rest.json_body import LARGE, parsed, read_json
from polyroute.server.rest.openai_shapes import (
    FINISH,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatLogprobs,
    chat_logprobs,
    part_of_tool_call,
    usage,
)
from polyroute.server.rest.plain_chat import plain_chat
from polyroute.server.rest.routed import RoutedAnswer
from polyroute.server.rest.sse import DONE, Texts, frame, stream


class ChatEndpoint:
    """Chat completions over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._known = KnownBodies(gateway)

    async def complete(self, http: web.Request) -> web.StreamResponse:
        """One answer to a conversation; with `stream`, as server-sent events."""
        raw = await read_json(http)
        asked = self._known.find(raw) or await self._read(raw)
        made = self._known.call(http, asked)
        name = f"chatcmpl-{made.request_id}"
        if asked.stream:
            del raw  # a stream would hold it for as long as it is open
            return await stream(http, self._gateway, made, _Frames(name, asked.with_logprobs, asked.with_usage))
        whole = self._gateway.at_hand(made)
        if whole is None:
            answer = await answered(self._gateway.generate(made))
            return RoutedAnswer(http, chat_answer(answer, name, asked.with_logprobs), answer.route)
        self._known.keep(raw, asked, made)
        told = chat_answer_again(whole, name, asked.with_logprobs)
        return RoutedAnswer(http, told, whole.started.route)

    async def _read(self, raw: bytes) -> Asked:
        most_messages = self._gateway.limits.max_messages
        if len(raw) <= LARGE and (plain := plain_chat(raw, most_messages)) is not None:
            return plain
        body = await parsed(raw, ChatBody, {"messages": most_messages})
        return body.asked()


class _Frames:
    """Chunks: the role, the parts, the reason of the end, the usage where it is wanted, and `[DONE]`."""

    __slots__ = ("_created", "_name", "_route", "_texts", "_with_logprobs", "_with_usage")

    def __init__(self, name: str, with_logprobs: bool, with_usage: bool) -> None:
        self._name = name
        self._with_logprobs = with_logprobs
        self._with_usage = with_usage

    def started(self, route: Route) -> bytes:
        self._created, self._route = int(time.time()), route
        self._texts = Texts(self._part({"content": ""}), "content")
        return self._part({"role": "assistant", "content": ""})

    def token(self, token: Token) -> bytes:
        if token.tool_calls or token.logprobs or (token.text and self._with_logprobs):
            return self._part(_delta(token), chat_logprobs(token.logprobs) if self._with_logprobs else None)
        return self._texts.of(token)

    def end(self, end: Finished) -> bytes:
        last: ChatChunkChoice = {
            "index": 0,
            "delta": {},
            "logprobs": None,
            "finish_reason": FINISH[end.reason],
            "stop_reason": end.matched_stop,
        }
        used = self._chunk([], end) if self._with_usage else b""
        return self._chunk([last]) + used + DONE

    def failed(self, body: FailureBody) -> bytes:
        return frame(body)

    def _part(self, delta: ChatDelta, logprobs: ChatLogprobs | None = None) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}])

    def _chunk(self, choices: list[ChatChunkChoice], end: Finished | None = None) -> bytes:
        chunk: ChatChunk = {
            "id": self._name,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._route.model,
            "choices": choices,
            "system_fingerprint": self._route.version or None,
        }
        if self._with_usage:
            chunk["usage"] = None if end is None else usage(end.usage)
        return frame(chunk)


def _delta(token: Token) -> ChatDelta:
    delta: ChatDelta = {"content": token.text} if token.text or not token.tool_calls else {}
    if token.tool_calls:
        delta["tool_calls"] = [part_of_tool_call(part) for part in token.tool_calls]
    return delta
