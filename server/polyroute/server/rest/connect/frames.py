"""The envelope of each message of a stream: a byte of flags, four of length, the message."""

from __future__ import annotations

import struct
from typing import Final

from polyroute.core.errors import InvalidArgument

END: Final = 2
"""The flag of a stream's last envelope, which says how it ended."""

_COMPRESSED: Final = 1
_HEAD: Final = struct.Struct(">BI")


def enveloped(message: bytes, flags: int = 0) -> bytes:
    """A message in its envelope."""
    return _HEAD.pack(flags, len(message)) + message


def opened(raw: bytes) -> bytes:
    """The one message of a request; raises `InvalidArgument`."""
    if len(raw) < _HEAD.size:
        raise InvalidArgument("", f"the body has {len(raw)} bytes; a message's envelope alone has {_HEAD.size}")
    flags, length = _HEAD.unpack_from(raw)
    if flags & _COMPRESSED:
        raise InvalidArgument("", "the message is marked as compressed, without Connect-Content-Encoding")
    if flags:
        raise InvalidArgument("", f"the envelope has the flags {flags}, which no request has")
    if len(raw) != _HEAD.size + length:
        left = len(raw) - _HEAD.size
        raise InvalidArgument("", f"the envelope is of {length} bytes and {left} follow; send one message")
    return raw[_HEAD.size :]
