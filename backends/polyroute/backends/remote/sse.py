"""Server-sent events, parsed as they come (WHATWG HTML, section 9.2 "Server-sent events")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

MAX_LINE_BYTES: Final = 1024 * 1024
"""Longest line, and most data of one event."""

_FIELD = b"data: "
_BETWEEN = b"\n\n" + _FIELD
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class LineTooLong(Exception):
    """A line, or the data of one event, has more than `MAX_LINE_BYTES` bytes."""


ServerSentEvents: TypeAlias = tuple[bytes, Sequence[bytes]]
"""The name of one or more events, empty for plain messages, and the data of each as it came.

Whether that is UTF-8 shows on parsing it.
"""


class SseParser:
    """Takes the bytes of a stream in any pieces, and gives its events.

    An event that the stream ends within is not given, as the specification has it. `id` and `retry` are of no use here.
    """

    __slots__ = ("_after_cr", "_data", "_data_bytes", "_first", "_line", "_name")

    def __init__(self) -> None:
        self._line = bytearray()
        self._after_cr = False
        self._first = True
        self._name = b""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, piece: bytes) -> Iterable[ServerSentEvents]:
        """Gives the events that `piece` completes; take them all before the next piece. Raises `LineTooLong`.

        Nearly all pieces are whole events of one line `data: ...` each: those are cut out as they stand.
        """
        plain = None if self._after_cr or self._line or self._data or self._name else _plain(piece)
        if plain is None:
            return self._events(piece)
        self._first = False
        return ((b"", plain),)

    def _events(self, piece: bytes) -> Iterator[ServerSentEvents]:
        """Gives the events of any piece."""
        if self._after_cr or b"\r" in piece:
            yield from self._lines(piece)
            return
        if self._amid:
            end = piece.find(b"\n\n") + 2
            yield from self._lines(piece if end < 2 else piece[:end])
            piece = b"" if end < 2 else piece[end:]
        end = piece.rfind(b"\n\n") + 2
        if end >= 2:
            plain = _plain(piece[:end])
            if plain is not None:
                yield b"", plain
            else:
                for block in piece[: end - 2].split(b"\n\n"):
                    if block.startswith(_FIELD) and b"\n" not in block and len(block) <= MAX_LINE_BYTES:
                        yield b"", (block[len(_FIELD) :],)
                    elif block:
                        yield from self._lines(block + b"\n\n")
            piece = piece[end:]
        yield from self._lines(piece)

    @property
    def _amid(self) -> bool:
        """Whether what comes next may belong to what is here already."""
        return bool(self._first or self._line or self._data or self._name)

    def _lines(self, piece: bytes) -> Iterator[ServerSentEvents]:
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

    def _take(self, line: bytes) -> ServerSentEvents | None:
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

    def _dispatch(self) -> ServerSentEvents | None:
        event = (self._name, (b"\n".join(self._data),)) if self._data else None
        self._name, self._data, self._data_bytes = b"", [], 0
        return event


def _plain(piece: bytes) -> list[bytes] | None:
    """The data of a piece that is made of nothing but whole events of one line; None of any other."""
    if len(piece) > MAX_LINE_BYTES or not (piece.startswith(_FIELD) and piece.endswith(b"\n\n")) or b"\r" in piece:
        return None
    found = piece[len(_FIELD) : -2].split(_BETWEEN)
    return found if piece.count(b"\n") == 2 * len(found) else None
