"""Errors as Connect shows them: the code, the message and the details that gRPC callers get."""

from __future__ import annotations

import base64
import math
from typing import Any, Final

import orjson
from aiohttp import web
from google.protobuf import symbol_database
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.json_format import MessageToDict

from polyroute.core.errors import PolyrouteError
from polyroute.server.rest.connect.frames import END, enveloped
from polyroute.server.rest.connect.messages import CODECS
from polyroute.server.rest.failures import json_response
from polyroute.server.rest.frame import FRAME
from polyroute.server.rpc.status import status_of

_CODES: Final = {"CANCELLED": "canceled"}
"""Names of codes that are not those of gRPC in small letters."""


def unary_failure(http: web.Request, error: PolyrouteError) -> web.Response:
    """The answer to a unary RPC that failed: JSON, with the status of the core table."""
    response = json_response(_body(error, http[FRAME].request_id), status=error.http)
    if (delay_s := error.retry_delay_s) is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(delay_s)))
    return response


def stream_failure(http: web.Request, error: PolyrouteError) -> web.Response:
    """The answer to a stream that failed before it began: 200, and nothing but its end.

    The end is JSON whatever the messages are, and goes by the content type of the messages.
    """
    kinds = [codec.content_type(enveloped=True) for codec in CODECS]
    kind = http.content_type if http.content_type in kinds else kinds[0]
    return web.Response(body=end_of_stream(error, http[FRAME].request_id), content_type=kind)


def end_of_stream(error: PolyrouteError | None, request_id: str) -> bytes:
    """The last envelope of a stream, with what it ended with; None for success."""
    end: dict[str, Any] = {"metadata": {"x-request-id": [request_id]}}
    if error is not None:
        end["error"] = _body(error, request_id)
    return enveloped(orjson.dumps(end), END)


def _body(error: PolyrouteError, request_id: str) -> dict[str, Any]:
    status = status_of(error, request_id)
    return {
        "code": _CODES.get(error.grpc, error.grpc.lower()),
        "message": status.message,
        "details": [_detail(packed) for packed in status.details],
    }


def _detail(packed: Packed) -> dict[str, Any]:
    name = packed.TypeName()
    detail = symbol_database.Default().GetSymbol(name)()
    packed.Unpack(detail)
    value = base64.b64encode(packed.value).rstrip(b"=").decode()
    return {"type": name, "value": value, "debug": MessageToDict(detail)}
