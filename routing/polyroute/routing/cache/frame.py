"""How an answer's bytes stand in a tier: behind a header, and compressed where that pays."""

from __future__ import annotations

import struct
import zlib
from typing import Final

import msgspec
import zstandard

from polyroute.routing.cache.terms import MAX_ANSWER_BYTES, Moment
from polyroute.routing.cache.tier import Label

FORMAT: Final = 2
"""Raised whenever the header changes its meaning: entries of another format are misses. (1 had no header.)"""

COMPRESS_FROM: Final = 1024
"""Smallest size in bytes that is compressed."""

_HEADER: Final = struct.Struct("<3sBBHHQQII")
_MAGIC: Final = b"PRA"
_ZSTD: Final = 1
_LEVEL: Final = 3
_LARGEST_WINDOW: Final = MAX_ANSWER_BYTES
_LONGEST_NAME: Final = 4096

BEGINNING_BYTES: Final = _HEADER.size + 2 * _LONGEST_NAME
"""So much of an entry's beginning holds all that `header_of` reads."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """What an entry says of itself: whose it is, and its size in bytes before it was compressed."""

    label: Label
    plain_bytes: int
    compressed: bool
    crc: int
    begins: int


def pack(payload: bytes, label: Label) -> bytes:
    """An entry that holds `payload`."""
    body, flags = payload, 0
    if len(payload) >= COMPRESS_FROM:
        smaller = zstandard.ZstdCompressor(level=_LEVEL).compress(payload)
        if len(smaller) < len(payload):
            body, flags = smaller, _ZSTD
    return _headed(label, flags, len(payload), zlib.crc32(body)) + body


def relabelled(entry: bytes, header: Header, label: Label) -> bytes:
    """The same entry with another label: that of the machine that it has come to."""
    flags = _ZSTD if header.compressed else 0
    return _headed(label, flags, header.plain_bytes, header.crc) + entry[header.begins :]


def _headed(label: Label, flags: int, plain: int, crc: int) -> bytes:
    model, version = label.model.encode()[:_LONGEST_NAME], label.version.encode()[:_LONGEST_NAME]
    moment = label.moment
    head = _HEADER.pack(_MAGIC, FORMAT, flags, len(model), len(version), moment.local, moment.shared, plain, crc)
    return head + model + version


def header_of(entry: bytes) -> Header:
    """The header of `entry`, or of its first `BEGINNING_BYTES`; raises `ValueError` for what `pack` did not make."""
    if len(entry) < _HEADER.size:
        raise ValueError("is too short for an entry")
    magic, format_, flags, model, version, local, shared, plain, crc = _HEADER.unpack_from(entry)
    if magic != _MAGIC or format_ != FORMAT:
        raise ValueError(f"has no header of format {FORMAT}")
    between, begins = _HEADER.size + model, _HEADER.size + model + version
    if flags not in (0, _ZSTD) or plain > MAX_ANSWER_BYTES or begins > min(len(entry), BEGINNING_BYTES):
        raise ValueError("has a header that makes no sense")
    names = entry[_HEADER.size : between].decode(), entry[between:begins].decode()  # a UnicodeError is a ValueError
    return Header(Label(*names, Moment(local, shared)), plain, flags == _ZSTD, crc, begins)


def payload_of(entry: bytes, header: Header) -> bytes:
    """What `pack` was given; raises `ValueError` for what was changed since. Takes no more memory than the header
    says, and that is `MAX_ANSWER_BYTES` at most."""
    body = entry[header.begins :]
    if zlib.crc32(body) != header.crc:
        raise ValueError("is not as it was written")
    payload = _decompressed(body, header.plain_bytes) if header.compressed else body
    if len(payload) != header.plain_bytes:
        raise ValueError("has not the size that it says")
    return payload


def _decompressed(body: bytes, size: int) -> bytes:
    try:
        parameters = zstandard.get_frame_parameters(body)
        # `decompress` trusts the size that a frame claims, and would make room for it.
        if parameters.content_size != size or parameters.window_size > _LARGEST_WINDOW:
            raise ValueError("claims another size than its header")
        return zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"cannot be decompressed: {error}") from error
