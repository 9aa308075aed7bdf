"""Every way a call can fail, as exceptions read from the gRPC status and its google.rpc details."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

if TYPE_CHECKING:
    import grpc

M = TypeVar("M", bound=Message)

_DETAILS = "grpc-status-details-bin"
_PUSHBACK = "grpc-retry-pushback-ms"
_REQUEST_ID = "x-request-id"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of the request that the server refused, and why."""

    field: str
    problem: str


class RequestFailed(Exception):
    """A call failed. Subclasses tell the cases apart; `str(error)` is `REASON: message`.

    `code` is the gRPC status (`NOT_FOUND`), `reason` the finer word of the server's error table (`UNKNOWN_MODEL`; equal
    to `code` where no server said one). `retry_after_s` is how long the server asks to wait, in seconds, or None.
    `request_id` finds the call in the server's log; empty where it is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        reason: str = "",
        violations: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
        request_id: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason or code
        self.violations = violations
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.metadata = dict(metadata or {})

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class InvalidRequest(RequestFailed):
    """The request makes no sense, or cannot be honoured; `violations` name the fields."""


class NotFound(RequestFailed):
    """Something that was named does not exist."""


class UnknownModel(NotFound):
    """No model or route of that name; the message lists near ones."""


class NotCached(NotFound):
    """`only_if_cached` was asked for, and there is no stored answer."""


class Overloaded(RequestFailed):
    """No room: a queue is full, or a rate limit or quota is used up; `retry_after_s` says when to try again."""


class Unavailable(RequestFailed):
    """Not now: the model is loading, no replica is healthy, the server is draining."""


class Unreachable(Unavailable):
    """No server answered at the address, or the connection was lost."""


class DeadlineExceeded(RequestFailed):
    """The answer did not come, or not end, within the call's timeout or the model's own."""


class Cancelled(RequestFailed):
    """The call was cancelled by the server, or by closing the client or the stream under it."""


class Unauthenticated(RequestFailed):
    """The server does not believe who is calling."""


class PermissionDenied(RequestFailed):
    """The caller may not do this."""


class Unimplemented(RequestFailed):
    """The server does not have this call."""


class ServerFault(RequestFailed):
    """A bug of the server; its log tells more under `request_id`."""


_BY_CODE: Mapping[str, type[RequestFailed]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "FAILED_PRECONDITION": InvalidRequest,
    "NOT_FOUND": NotFound,
    "RESOURCE_EXHAUSTED": Overloaded,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "UNIMPLEMENTED": Unimplemented,
}
_BY_REASON: Mapping[str, type[RequestFailed]] = {"UNKNOWN_MODEL": UnknownModel, "NOT_CACHED": NotCached}


def from_rpc(error: grpc.aio.AioRpcError, address: str) -> RequestFailed:
    """What `error`, from a call to `address`, means."""
    code = error.code().name
    message = error.details() or ""
    trailers = {str(key): value for key, value in error.trailing_metadata() or ()}
    status = _status(trailers.get(_DETAILS))
    found = _detail(status, ErrorInfo)
    if found is None and code == "UNAVAILABLE":
        return Unreachable(_unreachable(message, address), code=code, reason="UNREACHABLE")
    if found is None and code == "DEADLINE_EXCEEDED":
        message = f"{address}: the answer did not come within the call's timeout"
    reason = found.reason if found is not None else ""
    cls = _BY_REASON.get(reason) or _BY_CODE.get(code, ServerFault)
    bad = _detail(status, BadRequest)
    named = _detail(status, RequestInfo)
    metadata = dict(found.metadata) if found is not None else {}
    return cls(
        message or f"{address}: no message",
        code=code,
        reason=reason,
        violations=tuple(FieldViolation(v.field, v.description) for v in bad.field_violations) if bad else (),
        retry_after_s=_retry_after_s(status, trailers.get(_PUSHBACK)),
        request_id=_text(
            (named.request_id if named else "") or metadata.get("request_id") or trailers.get(_REQUEST_ID)
        ),
        metadata=metadata,
    )


def _status(raw: str | bytes | None) -> Status:
    try:
        return Status.FromString(raw) if isinstance(raw, bytes) else Status()
    except DecodeError:  # not ours; the code and message still tell
        return Status()


def _detail(status: Status, cls: type[M]) -> M | None:
    for packed in status.details:
        if packed.Is(cls.DESCRIPTOR):
            detail = cls()
            try:
                packed.Unpack(detail)
            except DecodeError:
                return None
            return detail
    return None


def _retry_after_s(status: Status, pushback: str | bytes | None) -> float | None:
    retry = _detail(status, RetryInfo)
    if retry is not None and retry.HasField("retry_delay"):
        return float(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
    text = _text(pushback)
    return int(text) / 1000 if text.isdecimal() else None


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _unreachable(details: str, address: str) -> str:
    if "onnect" in details and "TLS" not in details and "handshake" not in details:
        hint = "is a server running there? `polyroute serve` starts one"
        return f"{address}: cannot be reached ({_last_error(details)}); {hint}"
    return f"{address}: {_last_error(details) or 'the connection was lost'}"


def _last_error(details: str) -> str:
    """The part of gRPC's message that a person can use."""
    return details.rsplit("last error: ", 1)[-1].removeprefix("UNKNOWN: ").removeprefix("UNAVAILABLE: ")
