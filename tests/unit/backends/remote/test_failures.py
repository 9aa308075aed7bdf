"""Every status and every broken connection has its row of the error table."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp.http import HttpProcessingError

from polyroute.backends.remote.failures import retry_after_s, status_failure, transport_failure
from polyroute.core.errors import (
    InvalidArgument,
    Overloaded,
    PeerFailed,
    PeerUnreachable,
    PolyrouteError,
    PromptTooLong,
    Unavailable,
    Unsupported,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, PeerFailed),
        (400, InvalidArgument),
        (401, PeerFailed),
        (403, PeerFailed),
        (404, PeerFailed),
        (408, PeerFailed),
        (413, InvalidArgument),
        (418, PeerFailed),
        (422, InvalidArgument),
        (429, Overloaded),
        (499, PeerFailed),
        (500, PeerFailed),
        (502, PeerFailed),
        (503, Unavailable),
        (504, PeerFailed),
    ],
)
def test_statuses(status: int, kind: type[PolyrouteError]) -> None:
    error = status_failure(status, {}, '{"error":{"message":"because"}}', "`m` at u")
    assert type(error) is kind
    assert "because" in error.message


@pytest.mark.parametrize("status", [429, 503])
def test_the_delay_is_kept(status: int) -> None:
    assert status_failure(status, {"Retry-After": "7"}, "", "m").retry_after_s == 7


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        (None, None),
        ("0", 0),
        (" 12 ", 12),
        ("99999999", 86400),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("9" * 400, None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
        ("Thu, 99 Jan 1970 00:00:01 GMT", None),
        ("Thu, 01 Jan 99999999999999999999 00:00:01 GMT", None),
    ],
)
def test_retry_after(value: str | None, delay: float | None) -> None:
    assert retry_after_s(value, now=10) == delay


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("context_length_exceeded", PromptTooLong),
        ("PROMPT_TOO_LONG", PromptTooLong),
        ("UNSUPPORTED_FIELD", Unsupported),
    ],
)
def test_a_refusal_that_says_more(code: str, kind: type[InvalidArgument]) -> None:
    error = status_failure(400, {}, f'{{"error":{{"message":"m","code":"{code}"}}}}', "m")
    assert type(error) is kind


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"error":"plain"}', "plain"),
        ('{"detail":"fastapi"}', "fastapi"),
        ('{"message":"other"}', "other"),
        ("<html>oops</html>", "<html>oops</html>"),
        ("", "no text"),
        ("[1]", "[1]"),
        ("x" * 5000, "x" * 200 + "... (5000 characters)"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
    ],
)
def test_what_is_quoted(body: str, says: str) -> None:
    error = status_failure(500, {}, body, "`m` at u")
    assert error.message == f"`m` at u: answered 500: {says}"
    assert error.quoted == ("" if says == "no text" else says)


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        (aiohttp.ServerDisconnectedError(), PeerUnreachable, PeerFailed),
        (aiohttp.ClientOSError(104, "reset"), PeerUnreachable, PeerFailed),
        (ConnectionResetError(), PeerUnreachable, PeerFailed),
        (aiohttp.ClientPayloadError(), PeerFailed, PeerFailed),
        (aiohttp.SocketTimeoutError(), PeerFailed, PeerFailed),
        (aiohttp.ConnectionTimeoutError(), PeerUnreachable, PeerUnreachable),
        (aiohttp.InvalidURL("http://"), PeerUnreachable, PeerUnreachable),
    ],
)
def test_lost_connections(error: Exception, before: type[PolyrouteError], after: type[PolyrouteError]) -> None:
    assert type(transport_failure(error, "m", answering=False, silence_s=300)) is before
    assert type(transport_failure(error, "m", answering=True, silence_s=300)) is after


def test_silence_says_how_long() -> None:
    error = transport_failure(aiohttp.SocketTimeoutError(), "m", answering=True, silence_s=300)
    assert "silent for 300 s" in error.message


def test_what_is_no_http_is_quoted_to_the_caller_and_not_logged() -> None:
    error = HttpProcessingError(message="Invalid header: b'secret'")
    failure = transport_failure(error, "m", answering=True, silence_s=1)
    assert "secret" in failure.message
    assert "secret" not in failure.own_message
