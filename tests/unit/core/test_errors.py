"""THE error table has a sound row for every class of the tree."""

from __future__ import annotations

import grpc
import pytest

from polyroute.core import errors


def every_class(root: type[errors.PolyrouteError]) -> list[type[errors.PolyrouteError]]:
    return [root, *(cls for sub in root.__subclasses__() for cls in every_class(sub))]


@pytest.mark.parametrize("cls", every_class(errors.PolyrouteError))
def test_each_class_has_a_row_that_grpc_and_http_know(cls: type[errors.PolyrouteError]) -> None:
    assert grpc.StatusCode[cls.grpc].value[0] == errors.GRPC_CODES[cls.grpc]
    assert 400 <= cls.http <= 599
    assert cls.reason == cls.reason.upper()
    assert len(cls.reason) <= 63


def test_the_table_is_that_of_the_contract() -> None:
    rows = {cls.reason: (cls.grpc, cls.http) for cls in every_class(errors.PolyrouteError)}
    expected = {
        "INVALID_ARGUMENT": ("INVALID_ARGUMENT", 400),
        "PROMPT_TOO_LONG": ("INVALID_ARGUMENT", 400),
        "UNKNOWN_MODEL": ("NOT_FOUND", 404),
        "OVERLOADED": ("RESOURCE_EXHAUSTED", 429),
        "UNAUTHENTICATED": ("UNAUTHENTICATED", 401),
        "PERMISSION_DENIED": ("PERMISSION_DENIED", 403),
        "MODEL_LOADING": ("UNAVAILABLE", 503),
        "DRAINING": ("UNAVAILABLE", 503),
        "NO_HEALTHY_REPLICA": ("UNAVAILABLE", 503),
        "WORKER_DIED": ("UNAVAILABLE", 503),
        "PEER_FAILED": ("UNAVAILABLE", 502),
        "DEADLINE_EXCEEDED": ("DEADLINE_EXCEEDED", 504),
        "CANCELLED": ("CANCELLED", 499),
        "INTERNAL": ("INTERNAL", 500),
    }
    assert {reason: rows[reason] for reason in expected} == expected


def test_reasons_are_unique() -> None:
    reasons = [c.reason for c in every_class(errors.PolyrouteError) if c is not errors.Internal]
    assert len(set(reasons)) == len(reasons)


def test_an_internal_error_tells_the_request_id_only() -> None:
    assert "abc" in errors.Internal("abc").message


def test_clip_cuts_and_escapes() -> None:
    assert errors.clip("a\nb\x00\udc80", 10) == "a\\nb\\x00\\udc80"
    assert errors.clip("x" * 100, 10) == "x" * 10 + "... (100 characters)"


def test_near_names_are_listed() -> None:
    assert errors.UnknownModel("lama", ("llama",)).message == ("model: no model or route `lama`; did you mean `llama`?")


def test_what_others_wrote_is_left_out_of_logs() -> None:
    error = errors.PeerFailed("`m` at http://x: answered 500: ohh, secret")
    assert error.own_message == error.message
    error.quoted = "ohh, secret"
    assert error.own_message == "`m` at http://x: answered 500: (11 characters that are not logged)"
    told = error.after((), f"{error.message} (tried before: `y` PEER_FAILED)")
    assert told.own_message.endswith("(11 characters that are not logged) (tried before: `y` PEER_FAILED)")
    error.quoted = "not there"
    assert error.own_message == error.message
