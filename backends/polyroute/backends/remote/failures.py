"""Everything that can go wrong with a peer, as errors of the core's table: aiohttp's exceptions and HTTP's statuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
import orjson
from aiohttp.http import HttpProcessingError

from polyroute.backends.remote.shape import told_error
from polyroute.core.errors import (
    InvalidArgument,
    Overloaded,
    PeerFailed,
    PeerUnreachable,
    PolyrouteError,
    PromptTooLong,
    Unavailable,
    Unsupported,
    clip,
)

QUOTE_CHARS: Final = 200
"""How much of a peer's bad answer is quoted, in characters."""
MAX_RETRY_AFTER_S: Final = 86_400.0

_REFUSALS: Mapping[str, type[InvalidArgument]] = {
    "PROMPT_TOO_LONG": PromptTooLong,
    "context_length_exceeded": PromptTooLong,
    "UNSUPPORTED_FIELD": Unsupported,
}
"""Error codes (of a Polyroute, of OpenAI) that say more than the status does."""


def transport_failure(error: Exception, where: str, *, answering: bool, silence_s: float) -> PolyrouteError:
    """What aiohttp's or the system's `error` means.

    `answering` says that the peer's answer had begun, so that a lost connection is a bad answer and not an
    unreachable peer. `silence_s` is the longest silence that is borne, in seconds.
    """
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return PeerUnreachable(f"{where}: no connection in time")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return PeerUnreachable(f"{where}: its name cannot be resolved: {_words(error.os_error)}")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return PeerUnreachable(f"{where}: its certificate is not trusted: {_words(error.certificate_error)}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return PeerUnreachable(f"{where}: cannot connect: {_words(error.os_error)}")
    if isinstance(error, aiohttp.InvalidURL):
        return PeerUnreachable(f"{where}: is no URL that can be reached")
    if isinstance(error, aiohttp.SocketTimeoutError | asyncio.TimeoutError):
        return PeerFailed(f"{where}: silent for {silence_s:g} s")
    if isinstance(error, HttpProcessingError):
        failed = PeerFailed(f"{where}: did not answer in HTTP: {clip(error.message, QUOTE_CHARS)}")
        failed.quoted = clip(error.message, QUOTE_CHARS)  # with the bytes that are none
        return failed
    if isinstance(error, aiohttp.ClientConnectionError | OSError) and not answering:
        return PeerUnreachable(f"{where}: closed the connection before it answered")
    return PeerFailed(f"{where}: broke its answer off")


def status_failure(status: int, headers: Mapping[str, str], body: str, where: str) -> PolyrouteError:
    """What an answer with a status other than 2xx means; `body` is its beginning, free of secrets."""
    told = _told(body)
    quoted = clip(told.message or body.strip(), QUOTE_CHARS)
    error = _refusal(status, headers, told.code, quoted or "no text", where)
    error.quoted = quoted
    return error


def _refusal(status: int, headers: Mapping[str, str], code: str, words: str, where: str) -> PolyrouteError:
    message = f"{where}: answered {status}: {words}"
    if status in (400, 413, 422):
        return _REFUSALS.get(code, InvalidArgument)("", f"the peer refused the request: {words}")
    if status == 429:
        return Overloaded(message, retry_after_s=retry_after_s(headers.get("Retry-After"), time.time()))
    if status == 503:
        return Unavailable(message, retry_after_s=retry_after_s(headers.get("Retry-After"), time.time()))
    return PeerFailed(message)


def retry_after_s(value: str | None, now: float) -> float | None:
    """Seconds to wait as `Retry-After` says (RFC 9110, section 10.2.3): a number of seconds, or a date.

    `now` is Unix time. None where the header is absent or makes no sense.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) <= 9:
        return min(float(value), MAX_RETRY_AFTER_S)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, date.timestamp() - now), MAX_RETRY_AFTER_S)


class _Told:
    """An error body's message and code, as far as it has them."""

    def __init__(self, body: Any) -> None:
        self.message = told_error(body)
        error = body.get("error") if isinstance(body, dict) else None
        code = error.get("code") if isinstance(error, dict) else None
        self.code = code if isinstance(code, str) else ""


def _told(body: str) -> _Told:
    try:
        return _Told(orjson.loads(body))
    except ValueError:
        return _Told(None)


def _words(error: BaseException) -> str:
    """What the system or TLS says, without the numbers of Python's own wording."""
    text = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return clip(str(text), QUOTE_CHARS)
