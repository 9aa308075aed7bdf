"""Log lines: readable in a terminal, JSON elsewhere; always on stderr, and written by a thread of their own."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO, cast

import structlog

from polyroute.server.logs.lines import Line, json_line, text_line
from polyroute.server.logs.repeats import Repeats
from polyroute.server.logs.writer import LogWriter

FORMATS: Final = ("auto", "json", "text")
LEVELS: Final = ("debug", "info", "warning", "error")


def set_up(*, format: str = "auto", level: str = "info", stream: TextIO | None = None) -> LogWriter:
    """Configures structlog, and the standard library's logging, for this process; the writer is to be closed.

    `auto` is text in a terminal and JSON elsewhere. Of the standard library's lines only warnings are told.
    """
    out = stream or sys.stderr
    text = format == "text" or (format == "auto" and out.isatty())
    writer = LogWriter(out, text_line(colors=out.isatty()) if text else json_line, Repeats())
    structlog.configure(
        # These run where a line is logged, on the event loop; whatever can wait is done by the writer's thread.
        processors=[structlog.stdlib.add_log_level, _stamp, structlog.processors.format_exc_info, _hand_over],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: _Sink(writer.put),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Foreign(writer.put)], force=True)
    return writer


def _stamp(_: object, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    line["timestamp"] = time.time()
    return line


def _hand_over(_: object, __: str, line: structlog.typing.EventDict) -> tuple[tuple[Line], dict[str, object]]:
    """The line as the one argument of a method of `_Sink`."""
    return (cast("Line", line),), {}


class _Sink:
    """What structlog takes for a logger: every level goes the same way."""

    def __init__(self, put: Callable[[Line], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.exception = put


class _Foreign(logging.Handler):
    """Lines of the standard library's logging, in our form."""

    def __init__(self, put: Callable[[Line], None]) -> None:
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        line: Line = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "timestamp": record.created,
            "logger": record.name,
            "template": str(record.msg),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = logging.Formatter().formatException(record.exc_info)
        self._put(line)
