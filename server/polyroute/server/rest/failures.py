"""Errors as REST shows them: one JSON object with the status of the core table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus

import orjson
import structlog
from aiohttp import web
from typing_extensions import TypedDict

from polyroute.core.errors import MESSAGE_LIMIT, Internal, InvalidArgument, PolyrouteError, UnknownModel, clip
from polyroute.server.rest.dialect import Dialect

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
"""`error.type` by HTTP status, as OpenAI's callers know it; of others by whose fault it is: below 500 the caller's."""

_log = structlog.get_logger(__name__)


class Failure(TypedDict):
    """What went wrong. `code` is the machine-readable reason, `param` the field."""

    message: str
    type: str
    code: str
    param: str | None
    request_id: str


class FailureBody(TypedDict):
    """Body of every answer that is no success."""

    error: Failure


def failure(error: PolyrouteError, request_id: str, dialect: Dialect) -> FailureBody:
    """The error in JSON, its field named as the caller names it."""
    param: str | None = None
    message = error.message
    if isinstance(error, InvalidArgument):
        param = dialect.field(error.field) or None
        message = dialect.message(error)
    elif isinstance(error, UnknownModel):
        param = "model"
    return _body(error.http, error.reason, message, param, request_id)


def refusal(status: HTTPStatus, message: str, request_id: str) -> FailureBody:
    """An error of HTTP itself, such as a wrong method."""
    return _body(int(status), status.name, message, None, request_id)


def _body(status: int, code: str, message: str, param: str | None, request_id: str) -> FailureBody:
    return {
        "error": {
            "message": clip(message, MESSAGE_LIMIT),
            "type": TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
            "code": code,
            "param": param,
            "request_id": request_id,
        }
    }


def failure_response(error: PolyrouteError, request_id: str, dialect: Dialect) -> web.Response:
    """The error as a whole answer, with `Retry-After` in whole seconds where a later try may succeed."""
    response = json_response(failure(error, request_id, dialect), status=error.http)
    if (delay_s := error.retry_delay_s) is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(delay_s)))
    if error.attempts:
        response.headers["X-Polyroute-Attempts"] = str(len(error.attempts))
    return response


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`body` as an `application/json` answer, with more `headers` where it has any."""
    headers = {"Content-Type": "application/json", **(headers or {})}
    return web.Response(body=orjson.dumps(body), status=status, headers=headers)


def known(error: Exception, request_id: str) -> PolyrouteError:
    """`error` if the caller may see it; otherwise it goes to the log and the caller learns the request ID."""
    if isinstance(error, PolyrouteError):
        return error
    _log.error("rest.failed", request_id=request_id, exc_info=error)
    return Internal(request_id)
