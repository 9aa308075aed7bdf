"""How messages stand in a body: as JSON (https://protobuf.dev/programming-guides/json/), or as protobuf's own bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import orjson
from aiohttp import web
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message

from polyroute.core.errors import InvalidArgument, Unimplemented, clip
from polyroute.server.rest.connect.frames import opened
from polyroute.server.rest.connect.shape import check_shape
from polyroute.server.rest.json_body import parse_json, read_raw

_LARGE: Final = 64 * 1024
"""Bytes from which on a message is read and written off the event loop."""

_DEEPEST: Final = 100

_ENCODINGS: Final = ("identity", "gzip", "deflate")

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to write messages. `decode` raises `InvalidArgument`."""

    name: str
    decode: Callable[[bytes, type[Message]], Message]
    encode: Callable[[Message], bytes]

    def content_type(self, *, enveloped: bool) -> str:
        """Of a body with one message, or of one with messages in envelopes."""
        return f"application/connect+{self.name}" if enveloped else f"application/{self.name}"

    async def read(self, http: web.Request, shape: type[M], *, enveloped: bool) -> M:
        """The request's body as a message; raises `InvalidArgument`."""
        _check_headers(http)
        raw = await read_raw(http)
        if enveloped:
            raw = opened(raw)
        decoding = asyncio.to_thread(self.decode, raw, shape) if len(raw) > _LARGE else None
        return cast("M", self.decode(raw, shape) if decoding is None else await decoding)

    async def write(self, message: Message) -> bytes:
        """A message of an answer."""
        if message.ByteSize() > _LARGE:
            return await asyncio.to_thread(self.encode, message)
        return self.encode(message)


def from_json(raw: bytes, shape: type[M]) -> M:
    """JSON text as a message; raises `InvalidArgument` that names the field as the .proto does."""
    tree = parse_json(raw)
    if not isinstance(tree, dict):
        raise InvalidArgument("", "the message must be a JSON object")
    message = shape()
    check_shape(tree, cast("Descriptor", message.DESCRIPTOR))
    try:
        ParseDict(tree, message, max_recursion_depth=_DEEPEST)
    except ParseError as error:
        said, name = clip(" ".join(str(error).split()), 300), shape.DESCRIPTOR.full_name
        raise InvalidArgument("", f"the message does not fit {name}: {said}", quoted=said) from None
    return message


def to_json(message: Message) -> bytes:
    """A message as JSON text: a field that has its default is left out, 64-bit numbers are strings."""
    return orjson.dumps(MessageToDict(message))


def _from_bytes(raw: bytes, shape: type[M]) -> M:
    try:
        return shape.FromString(raw)
    except (DecodeError, ValueError):
        raise InvalidArgument("", f"the bytes are no {shape.DESCRIPTOR.full_name}") from None


JSON: Final = Codec("json", from_json, to_json)
CODECS: Final = (JSON, Codec("proto", _from_bytes, lambda message: message.SerializeToString()))


def codec_of(http: web.Request, *, enveloped: bool) -> Codec:
    """The codec of the request's content type; raises aiohttp's 415 where there is none."""
    for codec in CODECS:
        if http.content_type == codec.content_type(enveloped=enveloped):
            return codec
    taken = ", ".join(codec.content_type(enveloped=enveloped) for codec in CODECS)
    shown = clip(http.headers.get("Content-Type", "none"), 80)
    reason = f"Content-Type is {shown}; taken are {taken}".encode("ascii", "backslashreplace").decode()
    raise web.HTTPUnsupportedMediaType(reason=reason, headers={"Accept-Post": taken})


def _check_headers(http: web.Request) -> None:
    version = http.headers.get("Connect-Protocol-Version", "1")
    if version != "1":
        raise InvalidArgument("Connect-Protocol-Version", f"`{clip(version, 40)}`; this server speaks 1")
    encoding = http.headers.get("Connect-Content-Encoding", "identity")
    if encoding != "identity":
        raise Unimplemented(f"Connect-Content-Encoding: `{clip(encoding, 40)}`; streams are taken as `identity` only")
    whole = http.headers.get("Content-Encoding", "identity").lower()
    if whole not in _ENCODINGS:  # what aiohttp does not know it leaves as it is
        raise Unimplemented(f"Content-Encoding: `{clip(whole, 40)}`; taken are {', '.join(_ENCODINGS)}")
