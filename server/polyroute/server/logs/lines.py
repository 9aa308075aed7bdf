"""A log line as it is written: one line of JSON, or a readable one."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson
import structlog

from polyroute.core.errors import clip

Line: TypeAlias = dict[str, Any]
"""What a line says by key: `event`, `level` and `timestamp` (Unix time in seconds) are always there."""

TEMPLATE: Final = "template"
"""Key of what a line's event was made of, by which equal ones are known; it is not written."""

_MICROS: Final = 1_000_000
_SHORT_DIGITS: Final = 3
_EVENT_CHARS: Final = 2_000
_FIRST: Final = ("timestamp", "level", "event")


def json_line(line: Line) -> str:
    """The line as JSON, time in UTC."""
    written: Line = {"timestamp": "", "level": "", "event": "", **line}
    written["timestamp"] = _utc(line["timestamp"])
    written.pop(TEMPLATE, None)
    try:
        return orjson.dumps(written, default=str).decode() + "\n"
    except TypeError:  # what only the standard library can write, such as half a surrogate
        return json.dumps(written, default=str) + "\n"


def _utc(unix_s: float) -> str:
    second = int(unix_s)
    return f"{_second(second)}.{int((unix_s - second) * _MICROS):06d}Z"


@lru_cache(maxsize=4)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def text_line(*, colors: bool) -> Callable[[Line], str]:
    """Writes lines for people: without what is empty or zero, local time, and times to the millisecond."""
    # Plain tracebacks: the renderer's own choice prints local variables, and so prompts and answers.
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, sort_keys=False, pad_event_to=0
    )

    def write(line: Line) -> str:
        when = datetime.fromtimestamp(line["timestamp"]).strftime("%H:%M:%S")
        event = clip(str(line["event"]), _EVENT_CHARS)  # another library's may hold what a caller sent
        shown: Line = {"timestamp": when, "level": line["level"], "event": event}
        for key, value in line.items():
            if key not in _FIRST and key != TEMPLATE and value not in ("", 0, None, []):
                shown[key] = round(value, _SHORT_DIGITS) if isinstance(value, float) else value
        text = renderer(None, line["level"], shown)
        return f"{text}\n"

    return write
