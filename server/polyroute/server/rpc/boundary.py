"""The outermost frame of every RPC: its ID, and its errors."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from polyroute.core.errors import Cancelled, Internal, InvalidArgument, PolyrouteError, Unimplemented, clip
from polyroute.server.rpc.status import refusal
from polyroute.v1.inference_pb2 import GenerateRequest

STALL_S: Final = 60.0
"""How long a caller may leave unread what was sent before it is taken to have left, in seconds: it holds a permit."""

_REQUEST_ID_FORM: Final = re.compile(r"[\x21-\x7e]{1,128}")
_REQUEST_ID: Final = ContextVar("request_id", default="")

_Rpc: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_log = structlog.get_logger(__name__)


class _Undecodable:
    """Stands for request bytes that are no message of the method's type."""


def current_request_id() -> str:
    """ID of the RPC that runs in this task."""
    return _REQUEST_ID.get()


class Boundary(grpc.aio.ServerInterceptor):
    """Catches everything that a servicer lets out, so that gRPC never shows an exception's text to a caller.

    Stock services pass through it too.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        method = handler_call_details.method
        found = await continuation(handler_call_details)
        if found is None:
            return grpc.unary_unary_rpc_method_handler(_unary(_unknown(method), method))
        decode = _forgiving(found.request_deserializer)
        if found.response_streaming:
            wrapped = _streaming(found.stream_stream or found.unary_stream, method)
            make = (
                grpc.stream_stream_rpc_method_handler
                if found.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(wrapped, decode, found.response_serializer)
        plain = _unary(found.stream_unary or found.unary_unary, method)
        unary = grpc.stream_unary_rpc_method_handler if found.request_streaming else grpc.unary_unary_rpc_method_handler
        return unary(plain, decode, found.response_serializer)


def _unary(inner: Any, method: str) -> Callable[..., Awaitable[Any]]:
    async def answer(request: Any, rpc: _Rpc) -> Any:
        try:
            _name(request, rpc)
            return await inner(_checked(request), rpc)
        except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it is, the caller gets a status
            await _fail(error, method, rpc)

    return answer


def _streaming(inner: Any, method: str) -> Callable[..., Awaitable[None]]:
    async def answer(request: Any, rpc: _Rpc) -> None:
        # Written rather than yielded: a generator that gRPC leaves suspended would be closed whenever the garbage
        # collector finds it; here a cancelled RPC closes the servicer's generator at once.
        try:
            _name(request, rpc)
            async with aclosing(inner(_checked(request), rpc)) as messages:
                async for message in messages:
                    await _send(message, rpc)
        except Exception as error:  # noqa: BLE001 - as above
            await _fail(error, method, rpc)

    return answer


async def _send(message: Any, rpc: _Rpc) -> None:
    """Writes, and waits while the caller is behind; raises `Cancelled` where it does not catch up."""
    try:
        async with asyncio.timeout(STALL_S):
            await rpc.write(message)
    except TimeoutError:
        raise Cancelled(f"the caller left the stream unread for {STALL_S:g} s") from None


def _name(request: Any, rpc: _Rpc) -> None:
    """Gives the RPC its ID: the caller's own where it is usable, else a new one."""
    given = request.request_id if isinstance(request, GenerateRequest) else ""
    usable = _REQUEST_ID_FORM.fullmatch(given) is not None
    request_id = given if usable else uuid.uuid4().hex
    _REQUEST_ID.set(request_id)
    rpc.set_trailing_metadata((("x-request-id", request_id),))


async def _fail(error: Exception, method: str, rpc: _Rpc) -> NoReturn:
    """Ends the RPC with the status of `error`; one that is not of the tree goes to the log, and only there."""
    if isinstance(error, grpc.aio.BaseError):
        raise error  # gRPC's own: a stock servicer has ended the RPC, or a message went to a caller that has left
    request_id = current_request_id()
    if not isinstance(error, PolyrouteError):
        _log.error("rpc.failed", method=method, request_id=request_id, exc_info=error)
        error = Internal(request_id)
    ending = refusal(error, request_id)
    await rpc.abort(ending.code, ending.message, ending.trailers)


def _forgiving(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """`decode`, but returning `_Undecodable` where it raises: gRPC would answer UNKNOWN, with the exception's text."""
    if decode is None:
        return None

    def forgiving(message: bytes) -> Any:
        try:
            return decode(message)
        except (DecodeError, ValueError):
            return _Undecodable()

    return forgiving


def _checked(request: Any) -> Any:
    """The request, or the requests, of which undecodable ones raise `InvalidArgument`."""
    if hasattr(request, "__aiter__"):
        return _each_checked(request)
    if isinstance(request, _Undecodable):
        raise InvalidArgument("", "the request's bytes are no message of this method's request type")
    return request


async def _each_checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


def _unknown(method: str) -> Callable[..., Awaitable[Any]]:
    async def refuse(request: Any, rpc: _Rpc) -> NoReturn:
        raise Unimplemented(f"no method `{clip(method, 200)}` on this address")

    return refuse
