"""Prints what others wrote: as it is into a file or pipe, without what could steer a terminal onto one."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any, TextIO

_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]{0,32}[ -/]{0,8}[@-~]")
_UNFINISHED = re.compile(r"(?:\x1b|(?:\x1b\[|\x9b)[0-?]{0,32}[ -/]{0,8})$")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Printer:
    """Writes an answer's text as it comes; to a terminal without escape sequences and control characters.

    A sequence that one piece begins and the next one ends is recognised.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._held = ""
        self._last = "\n"

    def write(self, text: str) -> None:
        """Writes a piece, at once."""
        if self._terminal:
            text = self._held + text
            unfinished = _UNFINISHED.search(text)
            self._held = unfinished[0] if unfinished else ""
            text = plain(text.removesuffix(self._held))
        if text:
            self._out.write(text)
            self._out.flush()
            self._last = text[-1]

    def end(self) -> None:
        """Ends the last line, if it is open."""
        self._held = ""
        if self._last != "\n":
            self._out.write("\n")
            self._last = "\n"
        self._out.flush()


def plain(text: str) -> str:
    """`text` without escape sequences and control characters, line ends and tabs excepted."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text))


def say(text: str) -> None:
    """Writes a line about the call, not part of its result, to standard error."""
    print(plain(text), file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """Prints dataclasses as JSON by field name; bytes in base64, moments in ISO 8601, infinities as null."""
    unicode = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    text = json.dumps(jsonable(value), ensure_ascii=not unicode, indent=2)
    # JSON escapes C0 controls itself; the others can only stand inside strings.
    print(re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))


def jsonable(value: Any) -> Any:
    """`value` in the types that JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [jsonable(item) for item in value]
    return value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table: fitted to a terminal, or with each row on one line in a pipe."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    table = Table(box=SIMPLE_HEAD if terminal else None, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), no_wrap=not terminal, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console = Console(width=None if terminal else 100_000, highlight=False)
    console.print(table)
