"""Log lines: readable in a terminal, JSON elsewhere; always on stderr."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog


def set_up(stream: TextIO | None = None) -> None:
    """Configures structlog for this process; also brings the standard library's warnings into the same form."""
    out = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if out.isatty():
        # Plain tracebacks: the renderer's own choice prints local variables, and so prompts and answers.
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        last: list[structlog.typing.Processor] = [renderer]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    foreign = logging.StreamHandler(out)
    foreign.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_foreign(last)))
    logging.basicConfig(level=logging.WARNING, handlers=[foreign], force=True)


def _foreign(last: list[structlog.typing.Processor]) -> list[structlog.typing.Processor]:
    return [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
