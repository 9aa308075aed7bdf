"""The outermost frame of every HTTP request: its ID, its errors, and the headers of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from polyroute.core.errors import Draining, NotFound, clip
from polyroute.server.rest.call_headers import REQUEST_ID, request_id
from polyroute.server.rest.dialect import AS_THEY_ARE, Dialect
from polyroute.server.rest.failures import failure_response, json_response, known, refusal

DIALECT = web.RequestKey("dialect", Dialect)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

DRAINING_RETRY_S = 5.0
"""When a caller may try again, by which time another server or the next one should answer."""

_log = structlog.get_logger(__name__)


def edge(draining: Callable[[], bool]) -> Middleware:
    """The frame as aiohttp wants it. While `draining()`, every answer asks its connection to end."""

    @web.middleware
    async def frame(request: web.Request, handler: Answer) -> web.StreamResponse:
        request[REQUEST_ID] = request_id(request)
        try:
            response = await _answered(request, _refused if draining() and request.method == "POST" else handler)
        except asyncio.CancelledError:
            _log.info("rest.caller_left", request_id=request[REQUEST_ID], path=request.path)
            raise
        if not response.prepared:
            response.headers.update(always(request))
            if draining() or not request.content.is_eof():
                response.force_close()  # nor can a connection go on after a body that was not read to its end
            if request.content.exception() is not None:
                await _answer_and_close(request, response)
        return response

    return frame


def always(request: web.Request) -> dict[str, str]:
    """Headers that every answer has."""
    return {"X-Request-ID": request[REQUEST_ID], "X-Content-Type-Options": "nosniff"}


async def _answer_and_close(request: web.Request, response: web.StreamResponse) -> None:
    """Answers a body that cannot be decoded; aiohttp would try to read the rest and log a traceback for it."""
    await response.prepare(request)
    await response.write_eof()
    request.protocol.force_close()


async def _refused(request: web.Request) -> web.StreamResponse:
    raise Draining("the server is shutting down and takes no new calls", retry_after_s=DRAINING_RETRY_S)


async def _answered(request: web.Request, answer: Answer) -> web.StreamResponse:
    try:
        return await answer(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.method} is not possible here; {clip(request.path, 200)} takes {allowed}"
        response = json_response(
            refusal(HTTPStatus.METHOD_NOT_ALLOWED, message, request[REQUEST_ID]), status=HTTPStatus.METHOD_NOT_ALLOWED
        )
        response.headers["Allow"] = allowed
        return response
    except web.HTTPNotFound:
        path = clip(request.path, 200)
        return failure_response(
            NotFound("endpoint", path, f"no endpoint `{path}`; /openapi.json lists them"),
            request[REQUEST_ID],
            AS_THEY_ARE,
        )
    except web.HTTPException as error:
        status = HTTPStatus(error.status)
        return json_response(refusal(status, error.reason, request[REQUEST_ID]), status=status)
    except ConnectionError:
        raise  # the caller has gone; aiohttp ends the connection
    except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it is, the caller gets an answer
        found = known(error, request[REQUEST_ID])
        return failure_response(found, request[REQUEST_ID], request.get(DIALECT, AS_THEY_ARE))
