"""Reads chunks that differ in their text alone, as those of one stream mostly do, in a few steps for all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from polyroute.backends.remote.openai_chunk import chunk_of

_TEXT: Final = re.compile(rb'"(?:content|text)": ?"((?:[^"\\]|\\.)*)"')
_decode = msgspec.json.Decoder(list[str]).decode


def texts_of_run(first: bytes, rest: Sequence[bytes]) -> list[str]:
    """The texts of the chunks from the beginning of `rest` on that are like `first`, but for their text; or none.

    `first` has been read by `chunk_of`: whatever else it tells, all of these tell the same. None has a line feed in it.
    """
    found = _TEXT.search(first)
    if found is None:
        return []
    head, tail = first[: found.start(1)], first[found.end(1) :]
    if not _between_is_the_text(head, tail):
        return []
    count = len(rest)
    while count and not (rest[count - 1].startswith(head) and rest[count - 1].endswith(tail)):
        count -= 1
    run = rest[:count]
    before, behind = len(head), -len(tail)
    quoted = [chunk[before:behind] for chunk in run]
    if head + (tail + b"\n" + head).join(quoted) + tail != b"\n".join(run):
        return []
    try:
        # No string of JSON has a line feed in it, so each of these lines has a whole one at least; that there are as
        # many as lines says that none was ended by what it holds.
        texts = _decode(b'["' + b'",\n"'.join(quoted) + b'"]')
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []
    return texts if len(texts) == count else []


def _between_is_the_text(head: bytes, tail: bytes) -> bool:
    """Whether a string that stands between them is the text of the chunk, whatever is in it, and if nothing is."""
    for text in ("?", ""):
        chunk = chunk_of(head + text.encode() + tail)
        if chunk is None or [choice.said for choice in chunk.choices] != [text]:
            return False
    return True
