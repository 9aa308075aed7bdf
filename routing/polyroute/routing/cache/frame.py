"""How an answer's bytes stand in a tier: behind a header, and compressed where that pays."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import zstandard

from polyroute.routing.cache.terms import MAX_ANSWER_BYTES, Moment

FORMAT: Final = 2
"""Raised whenever the header changes its meaning: entries of another format are misses. (1 had no header.)"""

COMPRESS_FROM: Final = 1024
"""Smallest size in bytes that is compressed."""

_HEADER: Final = struct.Struct("<3sBBQQ8sII")
_MAGIC: Final = b"PRA"
_ZSTD: Final = 1
_LEVEL: Final = 3
_LARGEST_WINDOW: Final = MAX_ANSWER_BYTES

HEADER_BYTES: Final = _HEADER.size
"""So much of an entry's beginning tells what `Header` has."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an entry says of itself: the moment of its call, whose it is (see `fingerprint`), and its sizes in bytes,
    plain and as it stands there."""

    moment: Moment
    fingerprint: bytes
    plain_bytes: int
    compressed: bool
    crc: int


def fingerprint(model: str) -> bytes:
    """Eight bytes that stand for a model's ID."""
    return hashlib.blake2b(model.encode(), digest_size=8).digest()


def pack(payload: bytes, model: str, moment: Moment) -> bytes:
    """An entry that holds `payload`."""
    body, flags = payload, 0
    if len(payload) >= COMPRESS_FROM:
        smaller = zstandard.ZstdCompressor(level=_LEVEL).compress(payload)
        if len(smaller) < len(payload):
            body, flags = smaller, _ZSTD
    header = _HEADER.pack(
        _MAGIC, FORMAT, flags, moment.local, moment.shared, fingerprint(model), len(payload), zlib.crc32(body)
    )
    return header + body


def header_of(entry: bytes) -> Header:
    """The header at the beginning of `entry`; raises `ValueError` for anything that `pack` did not make."""
    if len(entry) < HEADER_BYTES:
        raise ValueError("is too short for an entry")
    magic, format_, flags, local, shared, whose, plain, crc = _HEADER.unpack_from(entry)
    if magic != _MAGIC or format_ != FORMAT:
        raise ValueError(f"has no header of format {FORMAT}")
    if flags not in (0, _ZSTD) or plain > MAX_ANSWER_BYTES:
        raise ValueError("has a header that makes no sense")
    return Header(Moment(local, shared), whose, plain, flags == _ZSTD, crc)


def payload_of(entry: bytes, header: Header) -> bytes:
    """What `pack` was given; raises `ValueError` for what was changed since. Takes no more memory than the header
    says, and that is `MAX_ANSWER_BYTES` at most."""
    body = entry[HEADER_BYTES:]
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
