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
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if out.isatty() else "iso", utc=not out.isatty()),
    ]
    if out.isatty():
        # Plain tracebacks: the renderer's own choice prints local variables, and so prompts and answers.
        renderer = structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.plain_traceback, sort_keys=False, pad_event_to=0
        )
        last: list[structlog.typing.Processor] = [_short, renderer]
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


def _short(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """For people: without what is empty or zero, and times to the millisecond."""
    return {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in event.items()
        if value not in ("", 0, None) or key == "event"
    }


def _foreign(last: list[structlog.typing.Processor]) -> list[structlog.typing.Processor]:
    return [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
