"""The outermost frame of every RPC: its ID, its errors, and what is told of those that never became a call."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import grpc.aio
import msgspec
import structlog
from google.protobuf.message import DecodeError

from polyroute.core.call import Call, Entrance, new_request_id
from polyroute.core.errors import (
    MESSAGE_LIMIT,
    Internal,
    InvalidArgument,
    PolyrouteError,
    Unimplemented,
    clip,
)
from polyroute.core.request import Request
from polyroute.server.patience import STALL_S, Patience
from polyroute.server.rpc.asked import Asked, Known
from polyroute.server.rpc.status import refusal
from polyroute.server.trace import trace_of
from polyroute.v1.inference_pb2 import GenerateRequest

GENERATING: Final = ("/polyroute.v1.InferenceService/Generate", "/polyroute.v1.InferenceService/StreamGenerate")
"""The methods of which each RPC is a call."""

REQUEST_ID_FORM: Final = re.compile(r"[\x21-\x7e]{1,128}")
"""What a caller's request ID must be to be taken over."""

_GENERATE: Final = (Known, Asked, GenerateRequest)

_Rpc: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
"""What serves one method."""
_Refused: TypeAlias = Callable[[Call, PolyrouteError], None]
_log = structlog.get_logger(__name__)


class Frame(msgspec.Struct, gc=False):
    """What is known of an RPC before it is read; `called` once it has become a call, which the gateway tells of."""

    entrance: Entrance
    request_id: str
    arrived: float
    model: str = ""
    called: bool = False


_FRAME: Final[ContextVar[Frame]] = ContextVar("frame")


@dataclass(frozen=True, slots=True)
class Writing:
    """A streaming method that writes its messages itself, with patience, instead of yielding them.

    A stream has a generator less then, which is for those of which thousands are open.
    """

    method: Callable[[Any, _Rpc, Patience], Awaitable[None]]

    def __call__(self, request: Any, rpc: _Rpc, patience: Patience) -> Awaitable[None]:
        return self.method(request, rpc, patience)


class _Letter:
    """A request until it is opened: gRPC holds what it has decoded for as long as the RPC lasts, and a stream lasts."""

    __slots__ = ("request",)

    def __init__(self, request: Any) -> None:
        self.request = request

    @classmethod
    def reading(cls, decode: Callable[[bytes], Any] | None) -> Callable[[bytes], _Letter]:
        """What makes one of the bytes that came."""
        return cls if decode is None else lambda message: cls(decode(message))

    def opened(self) -> Any:
        """The request, which is not here any more."""
        request, self.request = self.request, None
        return request


class _Undecodable:
    """Stands for request bytes that are no message of the method's type."""


def current_frame() -> Frame:
    """That of the RPC that runs in this task."""
    return _FRAME.get()


def enter(frame: Frame) -> None:
    """The RPC of `frame` is what this task runs from now on."""
    _FRAME.set(frame)


class Boundary:
    """Catches everything that a servicer lets out, so that gRPC never shows an exception's text to a caller.

    Stock services pass through it too. `refused` is told of what should have become a call and did not.
    """

    def __init__(self, refused: _Refused = lambda _call, _error: None) -> None:
        self._refused = refused
        self._patience = Patience(STALL_S)

    def around(self, found: Handler, method: str) -> Handler:
        """The handler of a method, which has this as its outermost frame."""
        edge = self._edge(method)
        decode = _forgiving(found.request_deserializer)
        checked = _each_checked if found.request_streaming else _checked
        if found.stream_stream is not None:
            both = _posting(_streaming(found.stream_stream, edge, checked, self._patience))
            return grpc.stream_stream_rpc_method_handler(both, decode, found.response_serializer)
        if found.unary_stream is not None:
            stream = _streaming(found.unary_stream, edge, checked, self._patience)
            return grpc.unary_stream_rpc_method_handler(stream, _Letter.reading(decode), found.response_serializer)
        plain = _unary(found.stream_unary or found.unary_unary, edge, checked)
        unary = grpc.stream_unary_rpc_method_handler if found.request_streaming else grpc.unary_unary_rpc_method_handler
        return unary(plain, decode, found.response_serializer)

    def unknown(self, method: str) -> Handler:
        """A handler for a method that there is not."""
        return grpc.unary_unary_rpc_method_handler(_unary(_unknown(method), self._edge(method), _checked))

    def _edge(self, method: str) -> _Edge:
        entrance = Entrance("grpc", method.removeprefix("/"))
        return _Edge(entrance, self._refused if method in GENERATING else _told)


@dataclass(frozen=True, slots=True)
class _Edge:
    """A method, and who is told of an RPC of it that has failed without having become a call."""

    entrance: Entrance
    refused: _Refused

    def begin(self, request: Any, rpc: _Rpc) -> None:
        """Gives the RPC its frame and its ID: the caller's own where it is usable, else a new one."""
        given, model = (request.request_id, request.model) if isinstance(request, _GENERATE) else ("", "")
        request_id = given if given and REQUEST_ID_FORM.fullmatch(given) else new_request_id()
        _FRAME.set(Frame(self.entrance, request_id, time.monotonic(), model))
        rpc.set_trailing_metadata((("x-request-id", request_id),))

    def failed(self, error: PolyrouteError, rpc: _Rpc) -> None:
        """Tells of the RPC, unless the gateway does."""
        frame = current_frame()
        if not frame.called:
            trace = trace_of(rpc.invocation_metadata() or ())
            call = Call(Request(frame.model), frame.request_id, frame.arrived, trace=trace, entrance=self.entrance)
            self.refused(call, error)


def _told(call: Call, error: PolyrouteError) -> None:
    _log.info(
        "rpc.refused",
        method=call.entrance.method,
        request_id=call.request_id,
        outcome=error.reason,
        error=clip(error.own_message, MESSAGE_LIMIT),
    )


def _unary(inner: Any, edge: _Edge, checked: Callable[[Any], Any]) -> Callable[..., Awaitable[Any]]:
    async def answer(request: Any, rpc: _Rpc) -> Any:
        try:
            edge.begin(request, rpc)
            return await inner(checked(request), rpc)
        except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it is, the caller gets a status
            await _fail(error, edge, rpc)
        finally:
            del request  # see `_fail`

    return answer


def _streaming(
    inner: Any, edge: _Edge, checked: Callable[[Any], Any], patience: Patience
) -> Callable[[_Letter, _Rpc], Awaitable[None]]:
    # Written rather than yielded: a generator that gRPC leaves suspended would be closed whenever the garbage
    # collector finds it; here a cancelled RPC closes the servicer's generator at once.
    write = inner if isinstance(inner, Writing) else _writing(inner)

    async def answer(letter: _Letter, rpc: _Rpc) -> None:
        try:
            edge.begin(letter.request, rpc)
            await write(checked(letter.opened()), rpc, patience)
        except Exception as error:  # noqa: BLE001 - as above
            await _fail(error, edge, rpc)

    return answer


def _posting(answer: Callable[[_Letter, _Rpc], Awaitable[None]]) -> Callable[[Any, _Rpc], Awaitable[None]]:
    """The same for requests that come as a stream, of which there is none to be held."""

    async def both(requests: Any, rpc: _Rpc) -> None:
        await answer(_Letter(requests), rpc)

    return both


def _writing(inner: Any) -> Writing:
    """A method that yields its messages, as one that writes them."""

    async def write(request: Any, rpc: _Rpc, patience: Patience) -> None:
        async with aclosing(inner(request, rpc)) as messages:
            async for message in messages:
                await patience.write(rpc.write, message)

    return Writing(write)


async def _fail(error: Exception, edge: _Edge, rpc: _Rpc) -> NoReturn:
    """Ends the RPC with the status of `error`; one that is not of the tree goes to the log, and only there."""
    if isinstance(error, grpc.aio.BaseError):
        raise error  # gRPC's own: a stock servicer has ended the RPC, or a message went to a caller that has left
    request_id = current_frame().request_id
    if not isinstance(error, PolyrouteError):
        _log.error("rpc.failed", method=edge.entrance.method, request_id=request_id, exc_info=error)
        error = Internal(request_id)
    edge.failed(error, rpc)
    ending = refusal(error, request_id)
    del error  # gRPC keeps what `abort` raises with the RPC: a ring, which holds all that its frames know
    try:
        await rpc.abort(ending.code, ending.message, ending.trailers)
    except grpc.aio.AbortError as aborted:
        aborted.__context__ = None
        raise


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
    """The request; an undecodable one raises `InvalidArgument`."""
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
