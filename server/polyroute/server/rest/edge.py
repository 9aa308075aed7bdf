"""The outermost frame of every HTTP request: its ID, its errors, the headers of its answer, and what is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Mapping
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from polyroute.core.call import Call, Entrance, new_request_id
from polyroute.core.errors import (
    MESSAGE_LIMIT,
    Cancelled,
    Draining,
    InvalidArgument,
    NotFound,
    PolyrouteError,
    clip,
)
from polyroute.core.request import Request
from polyroute.server.patience import Patience
from polyroute.server.rest.call_headers import entrance, request_id, says_something, trace_in
from polyroute.server.rest.connection_age import ConnectionAge
from polyroute.server.rest.dialect import AS_THEY_ARE
from polyroute.server.rest.failures import failure_response, json_response, known, refusal
from polyroute.server.rest.frame import FRAME, Frame
from polyroute.server.rest.routed import RoutedAnswer

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Refused = Callable[[Call, PolyrouteError], None]
Form = Callable[[web.Request, PolyrouteError], web.Response]
"""How an error is written as the answer to a request."""

DRAINING_RETRY_S = 5.0
"""When a caller may try again, by which time another server or the next one should answer."""

_log = structlog.get_logger(__name__)


class Edge:
    """The frame. While `draining()`, and once it is of `age`, a connection ends with its answer.

    `refused` is told of each request to one of the entrances `generating` that should have become a call and did not.
    `forms` says how errors are written at entrances that do not write them as REST does. `patience` watches all
    streams.
    """

    __slots__ = ("_age", "_draining", "_forms", "_generating", "_patience", "_refused")

    def __init__(
        self,
        draining: Callable[[], bool],
        generating: Container[str],
        refused: Refused,
        age: ConnectionAge,
        patience: Patience,
        forms: Mapping[str, Form] | None = None,
    ) -> None:
        self._draining = draining
        self._generating = generating
        self._refused = refused
        self._age = age
        self._patience = patience
        self._forms = forms or {}

    def middleware(self) -> Middleware:
        """The frame around what an application's router finds."""

        @web.middleware
        async def within(request: web.Request, handler: Answer) -> web.StreamResponse:
            return await self.around(entrance(request), handler, request)

        return within

    async def around(self, entered: Entrance, handler: Answer, request: web.Request) -> web.StreamResponse:
        """The answer of `handler` to a request that came in by `entered`, or the error that it ends with."""
        said = says_something(request)
        own_id = request_id(request) if said else new_request_id()
        last = self._age.over(request.transport)
        frame = request[FRAME] = Frame(entered, own_id, time.monotonic(), self._patience, said, last)
        try:
            if self._draining() and request.method == "POST":
                raise Draining("the server is shutting down and takes no new calls", retry_after_s=DRAINING_RETRY_S)
            response = await handler(request)
        except (asyncio.CancelledError, ConnectionError) as error:
            _failed(request, Cancelled("the caller left"), self._teller(entered))
            if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
                raise asyncio.CancelledError from None  # as a caller's leaving is told; aiohttp logs the other as ours
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it is, the caller gets an answer
            response = _refused(request, error, self._teller(entered), self._forms.get(entered.method))
        if not response.prepared:
            if not isinstance(response, RoutedAnswer):  # which writes them itself
                response.headers.update(always(request))
            if frame.last or self._draining() or not request.content.is_eof():
                response.force_close()  # nor can a connection go on after a body that was not read to its end
            if request.content.exception() is not None:
                await _answer_and_close(request, response)
        return response

    def _teller(self, entered: Entrance) -> Refused:
        return self._refused if entered.method in self._generating else _told


def always(request: web.Request) -> dict[str, str]:
    """Headers that every answer has."""
    return {"X-Request-ID": request[FRAME].request_id, "X-Content-Type-Options": "nosniff"}


async def _answer_and_close(request: web.Request, response: web.StreamResponse) -> None:
    """Answers a body that cannot be decoded; aiohttp would try to read the rest and log a traceback for it."""
    await response.prepare(request)
    await response.write_eof()
    request.protocol.force_close()


def _failed(request: web.Request, error: PolyrouteError, tell: Refused) -> None:
    """Tells of a request that fails, unless it has become a call: of those the gateway tells."""
    frame = request[FRAME]
    if not frame.called:
        call = Call(
            Request(frame.model),
            frame.request_id,
            frame.arrived,
            trace=trace_in(request),
            entrance=frame.entrance,
        )
        tell(call, error)


def _told(call: Call, error: PolyrouteError) -> None:
    _log.info(
        "rest.refused",
        entrance=call.entrance.method,
        request_id=call.request_id,
        outcome=error.reason,
        error=clip(error.own_message, MESSAGE_LIMIT),
    )


def _refused(request: web.Request, error: Exception, tell: Refused, form: Form | None) -> web.StreamResponse:
    """The answer to a request that fails. In a frame of its own: one that an error has passed and that holds it makes a
    ring, which keeps the request until it is collected."""
    frame = request[FRAME]
    if isinstance(error, web.HTTPException):
        return _refused_by_http(request, error, tell)
    problem = known(error, frame.request_id)
    _failed(request, problem, tell)
    if form is not None:
        return form(request, problem)
    return failure_response(problem, frame.request_id, frame.dialect)


def _refused_by_http(request: web.Request, error: web.HTTPException, tell: Refused) -> web.StreamResponse:
    """The same where the request did not get as far as to anything of ours."""
    status, own_id, path = HTTPStatus(error.status), request[FRAME].request_id, clip(request.path, 200)
    if isinstance(error, web.HTTPNotFound):
        missing = NotFound("endpoint", path, f"no endpoint `{path}`; /openapi.json lists them")
        _failed(request, missing, tell)
        return failure_response(missing, own_id, AS_THEY_ARE)
    message, more = error.reason, {}
    if isinstance(error, web.HTTPMethodNotAllowed):
        more["Allow"] = allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.method} is not possible here; {path} takes {allowed}"
    elif (accepted := error.headers.get("Accept-Post")) is not None:
        more["Accept-Post"] = accepted
    _failed(request, InvalidArgument("", message), tell)
    return json_response(refusal(status, message, own_id), status=status, headers=more)
