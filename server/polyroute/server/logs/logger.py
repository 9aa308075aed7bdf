"""What `structlog.get_logger` gives in the server: a line goes straight to the writer, past structlog's processors."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

import structlog

from polyroute.server.logs.lines import Line

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def logger_class(put: Callable[[Line], None], least: str) -> type[structlog.BoundLoggerBase]:
    """A wrapper class for structlog whose lines are `put`, those below the level `least` excepted.

    These methods run on the event loop, several times for some calls: they do what must be done there, and no more.
    """

    def told(level: str) -> Callable[..., None]:
        def write(self: structlog.BoundLoggerBase, event: str, **line: Any) -> None:
            if "exc_info" in line:
                line["exception"] = _formatted(line.pop("exc_info"))
            line["event"], line["level"], line["timestamp"] = event, level, time.time()
            put(line)

        return write

    def ignored(self: structlog.BoundLoggerBase, event: str, **line: Any) -> None:
        return None

    def exception(self: Any, event: str, **line: Any) -> None:
        self.error(event, exc_info=True, **line)

    methods: dict[str, Any] = {
        level: told(level) if number >= _LEVELS[least] else ignored for level, number in _LEVELS.items()
    }
    return type("Logger", (structlog.BoundLoggerBase,), {**methods, "exception": exception})


class Foreign(logging.Handler):
    """Lines of the standard library's logging, in our form."""

    def __init__(self, put: Callable[[Line], None]) -> None:
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        line: Line = {
            "event": _message(record),
            "level": record.levelname.lower(),
            "timestamp": record.created,
            "logger": record.name,
            "template": str(record.msg),
        }
        if record.exc_info:
            line["exception"] = _formatted(record.exc_info)
        self._put(line)


def _message(record: logging.LogRecord) -> str:
    """What it says; a line whose arguments do not fit is told without them, and harms nobody who logs."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments of any kind are put into words here
        return str(record.msg)


def _formatted(exc_info: object) -> str:
    """A traceback as text: of an exception, of `sys.exc_info()`, or of the one that is being handled (True)."""
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1]
    return "" if error is None else "".join(traceback.format_exception(error)).rstrip("\n")
