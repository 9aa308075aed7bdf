"""`POST /v1/completions`, whole and streamed."""

from __future__ import annotations

import time

import orjson
from aiohttp import web

from polyroute.core.event import Finished, Route, Token, TokenLogprob
from polyroute.routing.gateway import Gateway
from polyroute.server.rest.asked import KnownBodies
from polyroute.server.rest.failures import FailureBody
from polyroute.server.rest.json_body import parsed, read_json
from polyroute.server.rest.openai_bodies import CompletionBody
from polyroute.server.rest.openai_shapes import FINISH, CompletionAnswer, CompletionChoice, completion_logprobs, usage
from polyroute.server.rest.routed import RoutedAnswer
from polyroute.server.rest.sse import DONE, Texts, frame, stream


class CompletionEndpoint:
    """Completions over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._known = KnownBodies(gateway)

    async def complete(self, http: web.Request) -> web.StreamResponse:
        """One prompt continued; with `stream`, as server-sent events."""
        raw = await read_json(http)
        asked = self._known.find(raw) or (await parsed(raw, CompletionBody)).asked()
        made = self._known.call(http, asked)
        shape = _Shape(f"cmpl-{made.request_id}", asked.with_logprobs)
        if asked.stream:
            del raw  # a stream would hold it for as long as it is open
            return await stream(http, self._gateway, made, _Frames(shape, asked.with_usage))
        answer = await self._known.answer(raw, asked, made)
        told = shape.answer(answer.route, int(answer.created), [shape.choice(answer.text, answer.logprobs, answer.end)])
        told["usage"] = usage(answer.end.usage)
        return RoutedAnswer(http, orjson.dumps(told), answer.route)


class _Shape:
    """The shape that a whole answer and a chunk share."""

    def __init__(self, name: str, with_logprobs: bool) -> None:
        self._name = name
        self.with_logprobs = with_logprobs
        self._offset = 0

    def choice(self, text: str, tokens: tuple[TokenLogprob, ...], end: Finished | None) -> CompletionChoice:
        told = completion_logprobs(tokens, self._offset) if self.with_logprobs and (tokens or text) else None
        self._offset += len(text)
        return {
            "index": 0,
            "text": text,
            "logprobs": told,
            "finish_reason": None if end is None else FINISH[end.reason],
            "stop_reason": None if end is None else end.matched_stop,
        }

    def answer(self, route: Route, created: int, choices: list[CompletionChoice]) -> CompletionAnswer:
        return {
            "id": self._name,
            "object": "text_completion",
            "created": created,
            "model": route.model,
            "choices": choices,
            "system_fingerprint": route.version or None,
        }


class _Frames:
    """Chunks: the parts, the reason of the end, the usage where it is wanted, and `[DONE]`."""

    __slots__ = ("_created", "_route", "_shape", "_texts", "_with_usage")

    def __init__(self, shape: _Shape, with_usage: bool) -> None:
        self._shape = shape
        self._with_usage = with_usage

    def started(self, route: Route) -> bytes:
        self._created, self._route = int(time.time()), route
        self._texts = Texts(self._chunk([self._shape.choice("", (), None)]), "text")
        return b""

    def token(self, token: Token) -> bytes:
        if token.logprobs or (token.text and self._shape.with_logprobs):
            return self._chunk([self._shape.choice(token.text, token.logprobs, None)])
        return self._texts.of(token)

    def end(self, end: Finished) -> bytes:
        used = self._chunk([], end) if self._with_usage else b""
        return self._chunk([self._shape.choice("", (), end)]) + used + DONE

    def failed(self, body: FailureBody) -> bytes:
        return frame(body)

    def _chunk(self, choices: list[CompletionChoice], end: Finished | None = None) -> bytes:
        chunk = self._shape.answer(self._route, self._created, choices)
        if self._with_usage:
            chunk["usage"] = None if end is None else usage(end.usage)
        return frame(chunk)
