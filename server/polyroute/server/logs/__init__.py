"""Log lines: readable in a terminal, JSON elsewhere; always on stderr, and written by a thread of their own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, Final, TextIO

import structlog

from polyroute.server.logs.lines import Line, json_line, text_line
from polyroute.server.logs.logger import Foreign, logger_class
from polyroute.server.logs.repeats import Repeats
from polyroute.server.logs.writer import LogWriter

FORMATS: Final = ("auto", "json", "text")
LEVELS: Final = ("debug", "info", "warning", "error")


def set_up(
    *, format: str = "auto", level: str = "info", stream: TextIO | None = None, turns: int | None = None, **every: Any
) -> LogWriter:
    """Configures structlog, and the standard library's logging, for this process; the writer is to be closed.

    `auto` is text in a terminal and JSON elsewhere. Of the standard library's lines only warnings are told. Processes
    that write to one stream share the file descriptor `turns`, by which they take turns. The fields `every` stand in
    each line.
    """
    out = stream or sys.stderr
    text = format == "text" or (format == "auto" and out.isatty())
    render = text_line(colors=out.isatty()) if text else json_line
    rendered: Callable[[Line], str] = (lambda line: render({**line, **every})) if every else render
    writer = LogWriter(out, rendered, Repeats(), turns=turns)
    structlog.configure(processors=[], wrapper_class=logger_class(writer.put, level), cache_logger_on_first_use=True)
    logging.basicConfig(level=logging.WARNING, handlers=[Foreign(writer.put)], force=True)
    return writer
