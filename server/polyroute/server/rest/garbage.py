"""What callers send that is no HTTP: told in a line, without the bytes, which may be a part of a prompt."""

from __future__ import annotations

import logging
from typing import Final

import structlog
from aiohttp.http_exceptions import HttpProcessingError

_log = structlog.get_logger(__name__)


class _Garbage(logging.Filter):
    """Takes the lines that aiohttp's server logs of it, as its own errors, with the bytes that it could not read."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        _log.info("rest.garbage", status=error.code, kind=type(error).__name__)
        return False


_GARBAGE: Final = _Garbage()


def quiet_garbage() -> None:
    """From now on aiohttp quotes no caller in the log; a second time changes nothing."""
    logging.getLogger("aiohttp.server").addFilter(_GARBAGE)
