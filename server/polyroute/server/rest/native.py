"""The legacy endpoints: one prompt whole, several at once, or one as a stream."""

from __future__ import annotations

import asyncio
from typing import Final, NotRequired

import orjson
from aiohttp import web
from msgspec.structs import replace
from typing_extensions import TypedDict

from polyroute.core.call import Call
from polyroute.core.errors import InvalidArgument, PolyrouteError
from polyroute.core.event import CacheResult, Finished, Route, Token, Usage
from polyroute.core.request import Request
from polyroute.core.validate import validate
from polyroute.routing.gateway import Gateway
from polyroute.server.answers import Answer, answer_to
from polyroute.server.rest.answer_headers import ascii_header
from polyroute.server.rest.asked import Asked, KnownBodies
from polyroute.server.rest.bodies import MAX_BATCH, NATIVE, BatchBody, GenerateBody
from polyroute.server.rest.call_headers import call
from polyroute.server.rest.failures import FailureBody, json_response
from polyroute.server.rest.frame import FRAME
from polyroute.server.rest.json_body import parsed, read_body, read_json
from polyroute.server.rest.routed import RoutedAnswer
from polyroute.server.rest.sse import Texts, frame, stream

BATCH_CONCURRENCY = 16
_INDEX_CHARS = 8


class NativeUsage(TypedDict):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int


class NativeEnd(TypedDict):
    """How an answer ended; `finish_reason` is the lower-case name of `polyroute.v1.FinishReason`'s value."""

    finish_reason: str
    matched_stop: NotRequired[str]
    seed: NotRequired[int]
    usage: NativeUsage


class NativeAnswer(NativeEnd):
    """One whole answer. `cached`: it came from the cache. `created` is Unix time in seconds."""

    model: str
    version: str
    output: str
    cached: bool
    request_id: str
    created: int


class BatchResult(TypedDict):
    """One answer of several; `model` is there where the prompts were answered by different ones."""

    output: str
    cached: bool
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    model: str


class BatchAnswer(TypedDict):
    """The answers in the order of the prompts; `model` is what answered, or the route where that differs."""

    model: str
    results: list[BatchResult]
    request_id: str


class StreamStart(TypedDict):
    """Data of the event `start`."""

    model: str
    version: str
    cached: bool
    request_id: str


class StreamDelta(TypedDict):
    """Data of the event `delta`: the text that follows what came before."""

    text: str


class NativeEndpoints:
    """`/v1/generate`, `/v1/generate/batch` and `/v1/stream` over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._known = KnownBodies(gateway)

    async def generate(self, http: web.Request) -> web.StreamResponse:
        """One prompt, one whole answer."""
        raw, asked, made = await self._call(http)
        answer = await self._known.answer(raw, asked, made)
        return RoutedAnswer(http, orjson.dumps(_answer(answer, made.request_id)), answer.route)

    async def stream(self, http: web.Request) -> web.StreamResponse:
        """The same request, answered as server-sent events."""
        _, _, made = await self._call(http, streams=True)
        return await stream(http, self._gateway, made, _Frames(made.request_id))

    async def _call(self, http: web.Request, *, streams: bool = False) -> tuple[bytes, Asked, Call]:
        """The call of one prompt, with the bytes that it was made of and what they ask for."""
        raw = await read_json(http)
        asked = None if streams else self._known.find(raw)
        if asked is None:
            body = await parsed(raw, GenerateBody)
            asked = Asked(body.request(body.prompt), NATIVE, stream=streams)
        return raw, asked, self._known.call(http, asked)

    async def batch(self, http: web.Request) -> web.Response:
        """Several prompts with the same options; when one fails, all do, and the error names it."""
        body = await read_body(http, BatchBody, {"prompts": MAX_BATCH})
        if not body.prompts:
            raise InvalidArgument("prompts", "must not be empty")
        http[FRAME].dialect = NATIVE
        calls = [self._one_of(http, i, body.request(prompt)) for i, prompt in enumerate(body.prompts)]
        http[FRAME].called = True
        answers = await self._all(calls)
        models = {a.route.model for a in answers}
        model = models.pop() if len(models) == 1 else answers[0].route.requested
        results = [_result(a) for a in answers]
        told = BatchAnswer(model=model, results=results, request_id=http[FRAME].request_id)
        return json_response(told, headers={"X-Polyroute-Model": ascii_header(model)})

    def _one_of(self, http: web.Request, i: int, asked: Request) -> Call:
        made = call(http, asked, self._gateway.sticky_headers)
        name = f"{made.request_id[: 128 - _INDEX_CHARS]}-{i}"
        made = replace(made, request_id=name, request=replace(made.request, request_id=name))
        try:
            validate(made.request, self._gateway.limits)
        except InvalidArgument as error:
            raise _indexed(error, i) from None
        return made

    async def _all(self, calls: list[Call]) -> list[Answer]:
        turns = asyncio.Semaphore(BATCH_CONCURRENCY)

        async def one(i: int, made: Call) -> Answer:
            async with turns:
                try:
                    return await answer_to(made, self._gateway)
                except PolyrouteError as error:
                    raise _indexed(error, i) from error

        tasks: list[asyncio.Task[Answer]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks.extend(group.create_task(one(i, made)) for i, made in enumerate(calls))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]


def _indexed(error: PolyrouteError, i: int) -> PolyrouteError:
    """`error` with the place of its prompt."""
    if isinstance(error, InvalidArgument):
        return type(error)(f"prompts[{i}]" if error.field == "prompt" else error.field, error.problem)
    return error.after(error.attempts, f"prompts[{i}]: {error.message}")


def _usage(usage: Usage) -> NativeUsage:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_prompt_tokens": usage.cached_prompt_tokens,
    }


def _end(end: Finished) -> NativeEnd:
    told: NativeEnd = {"finish_reason": end.reason.name.lower(), "usage": _usage(end.usage)}
    if end.matched_stop is not None:
        told["matched_stop"] = end.matched_stop
    if end.seed is not None:
        told["seed"] = end.seed
    return told


def _answer(answer: Answer, request_id: str) -> NativeAnswer:
    return {
        "model": answer.route.model,
        "version": answer.route.version,
        "output": answer.text,
        "cached": answer.route.cache is CacheResult.HIT,
        "request_id": request_id,
        "created": int(answer.created),
        **_end(answer.end),
    }


def _result(answer: Answer) -> BatchResult:
    return {
        "output": answer.text,
        "cached": answer.route.cache is CacheResult.HIT,
        "prompt_tokens": answer.end.usage.prompt_tokens,
        "completion_tokens": answer.end.usage.completion_tokens,
        "finish_reason": answer.end.reason.name.lower(),
        "model": answer.route.model,
    }


_TEXTS: Final = Texts(frame(StreamDelta(text=""), "delta"), "text")


class _Frames:
    """Named events: `start`, `delta`, `end`, or `error`."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def started(self, route: Route) -> bytes:
        start: StreamStart = {
            "model": route.model,
            "version": route.version,
            "cached": route.cache is CacheResult.HIT,
            "request_id": self._request_id,
        }
        return frame(start, "start")

    def token(self, token: Token) -> bytes:
        return _TEXTS.of(token)

    def end(self, end: Finished) -> bytes:
        return frame(_end(end), "end")

    def failed(self, body: FailureBody) -> bytes:
        return frame(body, "error")
