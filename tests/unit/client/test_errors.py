"""Each status, with and without details, becomes the right exception."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RequestInfo
from google.rpc.status_pb2 import Status

from polyroute.client import errors

Trailers = tuple[tuple[str, str | bytes], ...]


def rpc_error(code: grpc.StatusCode, message: str | None = "no", trailers: Trailers = ()) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details=message)


def with_details(*details: Message) -> Trailers:
    status = Status()
    for detail in details:
        packed = Packed()
        packed.Pack(detail)
        status.details.append(packed)
    return (("grpc-status-details-bin", status.SerializeToString()),)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_is_an_exception(code: grpc.StatusCode) -> None:
    info = with_details(ErrorInfo(reason="WHY", domain="polyroute", metadata={"k": "v"}))
    error = errors.from_rpc(rpc_error(code, trailers=info), "host:1")
    assert (error.code, error.reason, str(error)) == (code.name, "WHY", "WHY: no")
    assert error.metadata == {"k": "v"}
    assert type(error) is not errors.RequestFailed
    ours = {"INTERNAL", "UNKNOWN", "DATA_LOSS", "ABORTED", "ALREADY_EXISTS"}
    assert isinstance(error, errors.ServerFault) == (code.name in ours)


@pytest.mark.parametrize(("reason", "kind"), [("UNKNOWN_MODEL", errors.UnknownModel), ("NOT_CACHED", errors.NotCached)])
def test_a_finer_reason_is_a_finer_exception(reason: str, kind: type[Exception]) -> None:
    error = errors.from_rpc(rpc_error(grpc.StatusCode.NOT_FOUND, trailers=with_details(ErrorInfo(reason=reason))), "a")
    assert type(error) is kind


@pytest.mark.parametrize(
    "trailers",
    [
        with_details(ErrorInfo(reason="R"), RequestInfo(request_id="q")),
        with_details(ErrorInfo(reason="R", metadata={"request_id": "q"})),
        (("x-request-id", "q"),),
    ],
    ids=["request-info", "error-info", "trailer"],
)
def test_the_request_id_is_found(trailers: Trailers) -> None:
    assert errors.from_rpc(rpc_error(grpc.StatusCode.INTERNAL, trailers=trailers), "a").request_id == "q"


def test_the_pushback_stands_in_for_the_retry_delay() -> None:
    busy = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert errors.from_rpc(rpc_error(busy, trailers=(("grpc-retry-pushback-ms", "250"),)), "a").retry_after_s == 0.25
    assert errors.from_rpc(rpc_error(busy, trailers=(("grpc-retry-pushback-ms", "-1"),)), "a").retry_after_s is None


@pytest.mark.parametrize("trailer", [b"\xff\xff", b"", b"not a status"])
def test_details_that_cannot_be_read_lose_nothing_else(trailer: bytes) -> None:
    broken = rpc_error(grpc.StatusCode.INTERNAL, "text", (("grpc-status-details-bin", trailer),))
    assert str(errors.from_rpc(broken, "a")) == "INTERNAL: text"


def test_no_message_is_said() -> None:
    assert "host:1" in errors.from_rpc(rpc_error(grpc.StatusCode.INTERNAL, None), "host:1").message


@pytest.mark.parametrize(
    ("details", "hint"),
    [
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: connection refused", True),
        ("Socket closed", False),
        ("", False),
    ],
)
def test_a_connection_that_fails_names_the_address(details: str, hint: bool) -> None:
    error = errors.from_rpc(rpc_error(grpc.StatusCode.UNAVAILABLE, details), "host:1")
    assert isinstance(error, errors.Unreachable)
    assert error.message.startswith("host:1: ")
    assert ("polyroute serve" in error.message) == hint
    assert "last error" not in error.message
