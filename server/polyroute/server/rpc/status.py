"""Errors of core as gRPC statuses with `google.rpc` details (gRFC A6, and the "richer error model")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from polyroute.core.errors import (
    DOMAIN,
    GRPC_CODES,
    MESSAGE_LIMIT,
    Internal,
    InvalidArgument,
    NotFound,
    PolyrouteError,
    clip,
)
from polyroute.server.wire.values import duration

TRAILER_LIMIT: Final = 8192
"""Most bytes that trailing metadata may have: clients refuse more by default."""

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_DESCRIPTION_LIMIT: Final = 700
_VALUE_LIMIT: Final = 200
_MOST_VALUES: Final = 4
_LONGEST_PUSHBACK_S: Final = 30.0
_MARK_ROOM: Final = 32  # for what `clip` adds where it cuts


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a failed RPC ends with."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


def refusal(error: PolyrouteError, request_id: str) -> Refusal:
    """The status of `error`, with its details; all of it together stays below `TRAILER_LIMIT`."""
    status = status_of(error, request_id)
    trailers: list[tuple[str, str | bytes]] = [("x-request-id", request_id)]
    delay_s = error.retry_delay_s
    if delay_s is not None and error.try_next:  # a client takes a pushback for leave to retry (gRFC A6)
        trailers.append(("grpc-retry-pushback-ms", _pushback(delay_s)))
    trailers.append(("grpc-status-details-bin", status.SerializeToString()))
    return Refusal(_CODES[GRPC_CODES[error.grpc]], status.message, tuple(trailers))


def status_of(error: PolyrouteError, request_id: str) -> Status:
    """`error` as `google.rpc.Status`: its code, its message, and the details of `docs/errors.md`."""
    status = Status(code=GRPC_CODES[error.grpc], message=fit(error.message, MESSAGE_LIMIT))
    details: list[Message] = [
        ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_metadata(error, request_id)),
    ]
    if isinstance(error, InvalidArgument):
        violation = BadRequest.FieldViolation(
            field=fit(error.field, _VALUE_LIMIT), description=fit(error.problem, _DESCRIPTION_LIMIT)
        )
        details.append(BadRequest(field_violations=[violation]))
    if isinstance(error, NotFound):
        name = fit(error.name, _VALUE_LIMIT)
        details.append(ResourceInfo(resource_type=f"{DOMAIN}.{error.kind}", resource_name=name))
    if (delay_s := error.retry_delay_s) is not None:
        details.append(RetryInfo(retry_delay=duration(delay_s)))
    for detail in details:
        packed = Packed()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _pushback(delay_s: float) -> str:
    """In milliseconds. A client's library sleeps through a pushback without a word: a long delay is for its caller to
    wait out, and a negative one says so."""
    return str(round(delay_s * 1000)) if delay_s <= _LONGEST_PUSHBACK_S else "-1"


def fit(text: str, limit: int) -> str:
    """Cuts `text` so that it takes at most `limit` bytes, percent-encoded as gRPC sends status messages."""
    shown = clip(text, limit - _MARK_ROOM)
    room = limit
    for kept, character in enumerate(shown):
        plain = " " <= character <= "~" and character != "%"
        room -= 1 if plain else 3 * len(character.encode())
        if room < 0:
            return shown[:kept] if kept < 3 else shown[: kept - 3] + "..."
    return shown


def _metadata(error: PolyrouteError, request_id: str) -> dict[str, str]:
    """`ErrorInfo.metadata`: of an internal error the request ID alone."""
    if isinstance(error, Internal):
        return {"request_id": request_id}
    shown = {key: fit(value, _VALUE_LIMIT) for key, value in list(error.metadata.items())[:_MOST_VALUES]}
    return {"request_id": request_id, **shown}
