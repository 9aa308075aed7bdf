"""Server-sent events, parsed as they come (WHATWG HTML, section 9.2 "Server-sent events")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

MAX_LINE_BYTES: Final = 1024 * 1024
"""Longest line, and most data of one event."""

_PLAIN = re.compile(rb"data: ([^\n]*)\n\n")
_AROUND = len(b"data: \n\n")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class LineTooLong(Exception):
    """A line, or the data of one event, has more than `MAX_LINE_BYTES` bytes."""


ServerSentEvent: TypeAlias = tuple[bytes, bytes]
"""The name of an event, empty for a plain message, and its data as it came: whether that is UTF-8 shows on parsing it.
"""


class SseParser:
    """Takes the bytes of a stream in any pieces, and gives its events.

    An event that the stream ends within is not given, as the specification has it. `id` and `retry` are of no use here.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._after_cr = False
        self._first = True
        self._name = b""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, piece: bytes) -> Iterable[ServerSentEvent]:
        """Gives the events that `piece` completes; take them all before the next piece. Raises `LineTooLong`.

        Nearly all pieces are whole events of one line `data: ...` each: those are cut out as they stand.
        """
        plain = None if self._after_cr or self._line or self._data or self._name else _plain(piece)
        if not plain:
            return self._events(piece)
        self._first = False
        return plain

    def _events(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """Gives the events of any piece."""
        if self._after_cr or b"\r" in piece:
            yield from self._lines(piece)
            return
        if self._amid:
            end = piece.find(b"\n\n") + 2
            yield from self._lines(piece if end < 2 else piece[:end])
            piece = b"" if end < 2 else piece[end:]
        end = piece.rfind(b"\n\n")
        if end >= 0:
            for block in piece[:end].split(b"\n\n"):
                if block.startswith(b"data: ") and b"\n" not in block and len(block) <= MAX_LINE_BYTES:
                    yield b"", block[6:]
                elif block:
                    yield from self._lines(block + b"\n\n")
            piece = piece[end + 2 :]
        yield from self._lines(piece)

    @property
    def _amid(self) -> bool:
        """Whether what comes next may belong to what is here already."""
        return bool(self._first or self._line or self._data or self._name)

    def _lines(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """Gives the events that `piece` completes, line by line, whatever it may hold."""
        if not piece:
            return
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]  # the second half of a CRLF whose first half ended a line already
        self._after_cr = piece.endswith(b"\r")
        *ends, rest = _LINE_END.split(piece)
        for end in ends:
            self._extend(end)
            line = bytes(self._line)
            self._line.clear()
            event = self._take(line)
            if event is not None:
                yield event
        self._extend(rest)

    def _extend(self, part: bytes) -> None:
        if len(self._line) + len(part) > MAX_LINE_BYTES:
            raise LineTooLong
        self._line += part

    def _take(self, line: bytes) -> ServerSentEvent | None:
        if self._first:
            line, self._first = line.removeprefix(_BOM), False
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data_bytes += len(value) + 1
            if self._data_bytes > MAX_LINE_BYTES + 1:
                raise LineTooLong
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        event = (self._name, b"\n".join(self._data)) if self._data else None
        self._name, self._data, self._data_bytes = b"", [], 0
        return event


def _plain(piece: bytes) -> list[ServerSentEvent] | None:
    """The events of a piece that is made of nothing but whole ones of one line; None of any other."""
    if b"\r" in piece or len(piece) > MAX_LINE_BYTES:
        return None
    found = _PLAIN.findall(piece)
    if sum(map(len, found)) + _AROUND * len(found) != len(piece):
        return None
    return [(b"", data) for data in found]
