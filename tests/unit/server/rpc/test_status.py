"""Every error of the table as a gRPC status: its code, its details, and never too large."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from polyroute.core import errors
from polyroute.server.rpc.status import TRAILER_LIMIT, Refusal, fit, refusal


def every(kind: type[errors.PolyrouteError] = errors.PolyrouteError) -> Iterator[type[errors.PolyrouteError]]:
    for below in kind.__subclasses__():
        yield below
        yield from every(below)


def made(kind: type[errors.PolyrouteError], text: str = "why") -> errors.PolyrouteError:
    if issubclass(kind, errors.InvalidArgument):
        return kind(text, text)
    if issubclass(kind, errors.UnknownModel):
        return kind(text, (text, text))
    if issubclass(kind, errors.NotFound):
        return kind("thing", text, text)
    return kind(text)


def details(ending: Refusal) -> dict[type, Any]:
    status = Status.FromString(dict(ending.trailers)["grpc-status-details-bin"])  # type: ignore[arg-type]
    found: dict[type, Any] = {}
    for packed in status.details:
        for kind in (ErrorInfo, BadRequest, ResourceInfo, RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                found[kind] = kind()
                packed.Unpack(found[kind])
    assert len(found) == len(status.details)
    assert status.code == ending.code.value[0]
    return found


@pytest.mark.parametrize("kind", list(every()), ids=lambda kind: kind.__name__)
def test_each_class_has_its_code_and_details(kind: type[errors.PolyrouteError]) -> None:
    error = made(kind)
    ending = refusal(error, "id-1")
    assert ending.code is getattr(grpc.StatusCode, kind.grpc)
    found = details(ending)
    assert (found[ErrorInfo].reason, found[ErrorInfo].domain) == (kind.reason, "polyroute")
    assert found[ErrorInfo].metadata["request_id"] == "id-1"
    assert (BadRequest in found) == issubclass(kind, errors.InvalidArgument)
    assert (ResourceInfo in found) == issubclass(kind, errors.NotFound)
    passing = kind.grpc in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
    assert (RetryInfo in found) == passing
    assert ("grpc-retry-pushback-ms" in dict(ending.trailers)) == (passing and kind.try_next)


def test_a_delay_that_is_known_is_told_exactly() -> None:
    ending = refusal(errors.ModelLoading("m", retry_after_s=12.5), "id")
    assert details(ending)[RetryInfo].retry_delay.ToMilliseconds() == 12_500
    assert dict(ending.trailers)["grpc-retry-pushback-ms"] == "12500"


def test_a_long_delay_is_told_and_left_to_the_caller() -> None:
    ending = refusal(errors.ModelLoading("m", retry_after_s=31), "id")
    assert details(ending)[RetryInfo].retry_delay.ToMilliseconds() == 31_000
    assert dict(ending.trailers)["grpc-retry-pushback-ms"] == "-1"


def test_nobody_is_invited_to_retry_what_cannot_succeed() -> None:
    ending = refusal(errors.DeadlineExceeded("m", retry_after_s=1), "id")
    assert "grpc-retry-pushback-ms" not in dict(ending.trailers)


def test_an_internal_error_carries_the_request_id_alone() -> None:
    error = errors.Internal("id-9")
    error.metadata = {"secret": "x"}
    assert dict(details(refusal(error, "id-9"))[ErrorInfo].metadata) == {"request_id": "id-9"}


@pytest.mark.parametrize("letter", ["a", "%", "é", "漢", "👋", "\x00", "\ud800", "\n"])
@pytest.mark.parametrize("kind", [errors.InvalidArgument, errors.UnknownModel, errors.PeerFailed])
def test_the_trailers_stay_small_whatever_is_quoted(kind: type[errors.PolyrouteError], letter: str) -> None:
    error = made(kind, letter * 10_000)
    error.metadata = {f"key-{i}": letter * 5000 for i in range(20)}
    ending = refusal(error, "r" * 128)
    size = sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in ending.message.encode())
    for key, value in ending.trailers:
        raw = value if isinstance(value, bytes) else value.encode()
        size += len(key) + len(base64.b64encode(raw) if key.endswith("-bin") else raw) + 32
    assert size < TRAILER_LIMIT
    details(ending)


def test_cutting_says_so_and_leaves_short_text_alone() -> None:
    assert fit("short", 100) == "short"
    assert fit("x" * 500, 100).startswith("x" * 60)
    assert "500 characters" in fit("x" * 500, 100)
    assert fit("漢" * 50, 100).endswith("...")
