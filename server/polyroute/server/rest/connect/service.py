"""Serves the methods of one gRPC service: each unary or streaming call becomes one of its servicer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from aiohttp import web
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from msgspec import structs

from polyroute.core.errors import DeadlineExceeded, PolyrouteError, Unimplemented, clip
from polyroute.server.rest.connect.failures import end_of_stream, stream_failure, unary_failure
from polyroute.server.rest.connect.frames import enveloped
from polyroute.server.rest.connect.messages import codec_of
from polyroute.server.rest.connect.rpc import HttpRpc
from polyroute.server.rest.edge import Form, always
from polyroute.server.rest.failures import known
from polyroute.server.rest.frame import FRAME
from polyroute.server.rest.sending import Sending
from polyroute.server.rpc.boundary import GENERATING, REQUEST_ID_FORM, Frame, enter
from polyroute.v1.inference_pb2 import GenerateRequest

_AS_IT_COMES: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

_LEEWAY_S: Final = 0.5
"""How long after the deadline an RPC is ended from outside, in seconds: who watches it himself can say more."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A gRPC service on the HTTP address. `admit` raises `PermissionDenied` for a request that may not come in."""

    service: ServiceDescriptor
    servicer: object
    admit: Callable[[web.Request], None] = lambda _http: None


@dataclass(frozen=True, slots=True)
class Method:
    """One path: `answer` serves it, `form` writes its errors. `generates` says that each request is a call."""

    path: str
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
    form: Form
    generates: bool = False

    @property
    def entrance(self) -> str:
        """As `polyroute.core.call.Entrance.method` names it."""
        return f"POST {self.path}"


def methods(offer: Offer) -> Iterator[Method]:
    """The methods of a service that can be served so, and last what refuses all other names."""
    service = offer.service
    for method in service.methods:
        path = f"/{service.full_name}/{method.name}"
        answer = _streamed(offer, method) if method.server_streaming else _whole(offer, method)
        form = stream_failure if method.server_streaming else unary_failure
        yield Method(path, answer, form, generates=path in GENERATING)
    yield Method(f"/{service.full_name}/{{method}}", _unknown, unary_failure)


def _whole(offer: Offer, method: MethodDescriptor) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    shape, call = GetMessageClass(method.input_type), getattr(offer.servicer, method.name)

    async def answer(http: web.Request) -> web.StreamResponse:
        offer.admit(http)
        codec = codec_of(http, enveloped=False)
        request = await codec.read(http, shape, enveloped=False)
        frame, rpc = _entered(http, request, streams=False), HttpRpc(http)
        try:
            told = await _in_time(call(request, rpc.as_context()), rpc)
        finally:
            http[FRAME].called = frame.called
        return web.Response(body=await codec.write(told), content_type=codec.content_type(enveloped=False))

    return answer


def _streamed(offer: Offer, method: MethodDescriptor) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    shape, call = GetMessageClass(method.input_type), getattr(offer.servicer, method.name)

    async def answer(http: web.Request) -> web.StreamResponse:
        offer.admit(http)
        codec = codec_of(http, enveloped=True)
        request = await codec.read(http, shape, enveloped=True)
        frame, rpc = _entered(http, request, streams=True), HttpRpc(http)
        response = web.StreamResponse(headers={"Content-Type": codec.content_type(enveloped=True), **_AS_IT_COMES})
        failed: PolyrouteError | None = None
        sending = Sending(http)
        try:
            async with aclosing(call(request, rpc.as_context())) as messages:
                async for message in messages:
                    await _send(http, response, sending, enveloped(await codec.write(message)))
        except ConnectionError:
            raise  # the caller has left
        except Exception as error:
            if not response.prepared:
                raise  # the edge tells of it, and writes it
            failed = known(error, http[FRAME].request_id)
        finally:
            http[FRAME].called = frame.called
        await _send(http, response, sending, end_of_stream(failed, http[FRAME].request_id))
        await sending.write(response.write_eof, b"")
        return response

    return answer


def _entered(http: web.Request, request: Message, *, streams: bool) -> Frame:
    """Gives the RPC its frame and its ID: that of the message where it is usable, else that of the HTTP request."""
    seen = http[FRAME]
    if isinstance(request, GenerateRequest):
        seen.model = request.model
        if REQUEST_ID_FORM.fullmatch(request.request_id):
            seen.request_id = request.request_id
    frame = Frame(structs.replace(seen.entrance, streams=streams), seen.request_id, seen.arrived)
    enter(frame)
    return frame


async def _in_time(answer: Awaitable[Any], rpc: HttpRpc) -> Any:
    left_s = rpc.time_remaining()
    try:
        async with asyncio.timeout(None if left_s is None else left_s + _LEEWAY_S) as limit:
            return await answer
    except TimeoutError:
        if limit.expired():
            raise DeadlineExceeded(f"no answer within the {rpc.timeout_s:g} s that the caller allows") from None
        raise


async def _send(http: web.Request, response: web.StreamResponse, sending: Sending, chunk: bytes) -> None:
    if not response.prepared:  # not before there is something to say, so that the edge can write an error
        response.headers.update(always(http))
        if http[FRAME].last:
            response.force_close()
        await response.prepare(http)
    await sending.write(response.write, chunk)


async def _unknown(http: web.Request) -> NoReturn:
    raise Unimplemented(f"no method `{clip(http.path, 200)}` on this address")
