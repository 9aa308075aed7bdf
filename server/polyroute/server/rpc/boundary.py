"""The outermost frame of every RPC: its ID, its errors, and what a draining server answers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from polyroute.core.errors import Draining, Internal, InvalidArgument, PolyrouteError, Unimplemented, clip
from polyroute.server.drain import Traffic
from polyroute.server.rpc.status import refusal
from polyroute.v1.inference_pb2 import GenerateRequest

DRAIN_RETRY_S: Final = 1.0
_OURS: Final = "/polyroute."
_REQUEST_ID: Final = ContextVar("request_id", default="")

_log = structlog.get_logger(__name__)


class _Undecodable:
    """Stands for request bytes that are no message of the method's type."""


def current_request_id() -> str:
    """ID of the RPC that runs in this task."""
    return _REQUEST_ID.get()


class Boundary(grpc.aio.ServerInterceptor):
    """Catches everything that a servicer lets out, so that gRPC never shows an exception's text to a caller.

    Stock services pass through it too. While `traffic.draining`, new calls to our own services are refused; health
    and reflection go on answering.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        method = handler_call_details.method
        found = await continuation(handler_call_details)
        if found is None:
            return grpc.unary_unary_rpc_method_handler(self._unary(_unknown(method), method))
        decode = _forgiving(found.request_deserializer)
        if found.response_streaming:
            wrapped = self._streaming(found.stream_stream or found.unary_stream, method)
            make = (
                grpc.stream_stream_rpc_method_handler
                if found.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(wrapped, decode, found.response_serializer)
        plain = self._unary(found.stream_unary or found.unary_unary, method)
        unary = grpc.stream_unary_rpc_method_handler if found.request_streaming else grpc.unary_unary_rpc_method_handler
        return unary(plain, decode, found.response_serializer)

    def _unary(self, inner: Callable[..., Any], method: str) -> Callable[..., Awaitable[Any]]:
        async def answer(request: Any, rpc: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                with self._traffic.call() if method.startswith(_OURS) else _UNCOUNTED:
                    self._admit(request, method, rpc)
                    return await inner(_checked(request), rpc)
            except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it is, the caller gets a status
                await _fail(error, method, rpc)

        return answer

    def _streaming(self, inner: Callable[..., AsyncIterator[Any]], method: str) -> Callable[..., AsyncIterator[Any]]:
        async def answer(request: Any, rpc: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                with self._traffic.call() if method.startswith(_OURS) else _UNCOUNTED:
                    self._admit(request, method, rpc)
                    async with aclosing(inner(_checked(request), rpc)) as messages:  # type: ignore[type-var]
                        async for message in messages:
                            yield message
            except Exception as error:  # noqa: BLE001 - as above
                await _fail(error, method, rpc)

        return answer

    def _admit(self, request: Any, method: str, rpc: grpc.aio.ServicerContext[Any, Any]) -> None:
        given = request.request_id if isinstance(request, GenerateRequest) else ""
        made = given if 0 < len(given) <= 128 and given.isascii() and given.isprintable() else uuid.uuid4().hex
        _REQUEST_ID.set(made)
        rpc.set_trailing_metadata((("x-request-id", made),))
        if self._traffic.draining and method.startswith(_OURS):
            raise Draining("the server is stopping; another one may answer", retry_after_s=DRAIN_RETRY_S)
