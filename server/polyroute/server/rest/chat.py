"""`POST /v1/chat/completions`, whole and streamed."""

from __future__ import annotations

import time

from aiohttp import web

from polyroute.core.event import Finished, Route, Token
from polyroute.routing.gateway import Gateway
from polyroute.server.answers import Answer, answer_to
from polyroute.server.rest.answer_headers import route_headers
from polyroute.server.rest.asked import Asked
from polyroute.server.rest.call_headers import accept, call
from polyroute.server.rest.chat_body import ChatBody
from polyroute.server.rest.failures import FailureBody, json_response
from polyroute.server.rest.frame import FRAME
from polyroute.server.rest.json_body import LARGE, parsed, read_json
from polyroute.server.rest.openai_shapes import (
    FINISH,
    AssistantMessage,
    ChatAnswer,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatLogprobs,
    chat_logprobs,
    part_of_tool_call,
    usage,
    whole_tool_call,
)
from polyroute.server.rest.plain_chat import plain_chat
from polyroute.server.rest.sse import DONE, Texts, frame, stream


class ChatEndpoint:
    """Chat completions over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def complete(self, http: web.Request) -> web.StreamResponse:
        """One answer to a conversation; with `stream`, as server-sent events."""
        asked = await self._asked(http)
        made = call(http, asked.request, self._gateway.sticky_headers)
        http[FRAME].dialect = asked.dialect
        accept(http, made, self._gateway.limits)
        name = f"chatcmpl-{made.request_id}"
        if asked.stream:
            return await stream(http, self._gateway, made, _Frames(name, asked.with_logprobs, asked.with_usage))
        answer = await answer_to(made, self._gateway)
        return json_response(_answer(answer, name, asked.with_logprobs), headers=route_headers(answer.route))

    async def _asked(self, http: web.Request) -> Asked:
        raw, most_messages = await read_json(http), self._gateway.limits.max_messages
        if len(raw) <= LARGE and (plain := plain_chat(raw, most_messages)) is not None:
            return plain
        body = await parsed(raw, ChatBody, {"messages": most_messages})
        return body.asked()


def _answer(answer: Answer, name: str, with_logprobs: bool) -> ChatAnswer:
    message: AssistantMessage = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool_calls:
        message["tool_calls"] = [whole_tool_call(called) for called in answer.tool_calls]
        message["content"] = answer.text or None
    return {
        "id": name,
        "object": "chat.completion",
        "created": int(answer.created),
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


class _Frames:
    """Chunks: the role, the parts, the reason of the end, the usage where it is wanted, and `[DONE]`."""

    def __init__(self, name: str, with_logprobs: bool, with_usage: bool) -> None:
        self._name = name
        self._with_logprobs = with_logprobs
        self._with_usage = with_usage

    def started(self, route: Route) -> bytes:
        self._created, self._route = int(time.time()), route
        self._texts = Texts(self._part({"content": ""}), "content")
        return self._part({"role": "assistant", "content": ""})

    def event(self, event: Token | Finished) -> bytes:
        if isinstance(event, Finished):
            return self._end(event)
        if event.tool_calls or event.logprobs or (event.text and self._with_logprobs):
            return self._part(_delta(event), chat_logprobs(event.logprobs) if self._with_logprobs else None)
        return self._texts.frames(event.pieces or (event.text,)) if event.text else b""

    def failed(self, body: FailureBody) -> bytes:
        return frame(body)

    def _part(self, delta: ChatDelta, logprobs: ChatLogprobs | None = None) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}])

    def _end(self, end: Finished) -> bytes:
        last: ChatChunkChoice = {
            "index": 0,
            "delta": {},
            "logprobs": None,
            "finish_reason": FINISH[end.reason],
            "stop_reason": end.matched_stop,
        }
        used = self._chunk([], end) if self._with_usage else b""
        return self._chunk([last]) + used + DONE

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
