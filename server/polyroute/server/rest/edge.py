"""The outermost frame of every HTTP request: its ID, its errors, the headers of its answer, and what is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Mapping
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from polyroute.core.call import Call
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
from polyroute.server.rest.call_headers import entrance, request_id, trace_in
from polyroute.server.rest.connection_age import ConnectionAge
from polyroute.server.rest.dialect import AS_THEY_ARE
from polyroute.server.rest.failures import failure_response, json_response, known, refusal
from polyroute.server.rest.frame import FRAME, Frame

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Refused = Callable[[Call, PolyrouteError], None]
Form = Callable[[web.Request, PolyrouteError], web.Response]
"""How an error is written as the answer to a request."""

DRAINING_RETRY_S = 5.0
"""When a caller may try again, by which time another server or the next one should answer."""

_log = structlog.get_logger(__name__)


def edge(
    draining: Callable[[], bool],
    generating: Container[str],
    refused: Refused,
    age: ConnectionAge,
    forms: Mapping[str, Form] | None = None,
) -> Middleware:
    """The frame as aiohttp wants it. While `draining()`, and once it is of `age`, a connection ends with its answer.

    `refused` is told of each request to one of the entrances `generating` that should have become a call and did not.
    `forms` says how errors are written at entrances that do not write them as REST does.
    """
    own_form = forms or {}

    @web.middleware
    async def within(request: web.Request, handler: Answer) -> web.StreamResponse:
        frame = Frame(entrance(request), request_id(request), time.monotonic(), age.over(request.transport))
        request[FRAME] = frame
        name = frame.entrance.method
        tell, form = refused if name in generating else _told, own_form.get(name)
        try:
            answer = _draining if draining() and request.method == "POST" else handler
            response = await _answered(request, answer, tell, form)
        except (asyncio.CancelledError, ConnectionError) as error:
            _failed(request, Cancelled("the caller left"), tell)
            if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
                raise asyncio.CancelledError from None  # as a caller's leaving is told; aiohttp logs the other as ours
            raise
        if not response.prepared:
            response.headers.update(always(request))
            if frame.last or draining() or not request.content.is_eof():
                response.force_close()  # nor can a connection go on after a body that was not read to its end
            if request.content.exception() is not None:
                await _answer_and_close(request, response)
        return response

    return within


def always(request: web.Request) -> dict[str, str]:
    """Headers that every answer has."""
    return {"X-Request-ID": request[FRAME].request_id, "X-Content-Type-Options": "nosniff"}


async def _answer_and_close(request: web.Request, response: web.StreamResponse) -> None:
    """Answers a body that cannot be decoded; aiohttp would try to read the rest and log a traceback for it."""
    await response.prepare(request)
    await response.write_eof()
    request.protocol.force_close()


async def _draining(request: web.Request) -> web.StreamResponse:
    raise Draining("the server is shutting down and takes no new calls", retry_after_s=DRAINING_RETRY_S)


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


async def _answered(request: web.Request, answer: Answer, tell: Refused, form: Form | None) -> web.StreamResponse:
    frame = request[FRAME]
    try:
        return await answer(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.method} is not possible here; {clip(request.path, 200)} takes {allowed}"
        _failed(request, InvalidArgument("", message), tell)
        status = HTTPStatus.METHOD_NOT_ALLOWED
        response = json_response(refusal(status, message, frame.request_id), status=status)
        response.headers["Allow"] = allowed
        return response
    except web.HTTPNotFound:
        path = clip(request.path, 200)
        missing = NotFound("endpoint", path, f"no endpoint `{path}`; /openapi.json lists them")
        _failed(request, missing, tell)
        return failure_response(missing, frame.request_id, AS_THEY_ARE)
    except web.HTTPException as error:
        status = HTTPStatus(error.status)
        _failed(request, InvalidArgument("", error.reason), tell)
        response = json_response(refusal(status, error.reason, frame.request_id), status=status)
        if (accepted := error.headers.get("Accept-Post")) is not None:
            response.headers["Accept-Post"] = accepted
        return response
    except ConnectionError:
        raise  # the caller has gone; aiohttp ends the connection
    except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it is, the caller gets an answer
        return _refused(request, known(error, frame.request_id), tell, form)


def _refused(request: web.Request, error: PolyrouteError, tell: Refused, form: Form | None) -> web.StreamResponse:
    """The answer to a request that fails. In a frame of its own: one that an error has passed and that holds it makes a
    ring, which keeps the request until it is collected."""
    _failed(request, error, tell)
    if form is not None:
        return form(request, error)
    return failure_response(error, request[FRAME].request_id, request[FRAME].dialect)
