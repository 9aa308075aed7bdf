"""Compressed bodies are made plain as they come, whatever they are cut into, and a little at a time."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import aiohttp
import pytest
from aiohttp.http import HttpProcessingError

from polyroute.backends.remote.inflate import MAX_PIECE_BYTES, inflating

TEXT = b"data: one\n\n" * 100


def raw(text: bytes) -> bytes:
    """Deflate without zlib's frame, as some servers send it."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(text) + deflate.flush()


async def inflated(coding: str, *pieces: bytes) -> list[bytes]:
    """The pieces that a body of these pieces is read as."""
    reader, left = inflating({"Content-Encoding": coding}), list(pieces)
    assert reader is not None

    async def more() -> bytes:
        return left.pop(0) if left else b""

    got = []
    while piece := await reader.read(more):
        got.append(piece)
    return got


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("X-GZip", gzip.compress(TEXT)),
        ("gzip", gzip.compress(TEXT[:50]) + gzip.compress(TEXT[50:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw(TEXT)),
    ],
)
async def test_bodies(coding: str, body: bytes) -> None:
    for size in (1, 7, len(body)):
        got = await inflated(coding, *(body[i : i + size] for i in range(0, len(body), size)))
        assert b"".join(got) == TEXT


async def test_a_little_that_becomes_much_comes_in_parts() -> None:
    got = await inflated("gzip", gzip.compress(b"\0" * (20 * MAX_PIECE_BYTES + 5)))
    assert sum(map(len, got)) == 20 * MAX_PIECE_BYTES + 5
    assert max(map(len, got)) <= MAX_PIECE_BYTES


@pytest.mark.parametrize("body", [gzip.compress(b"\0" * (9 * MAX_PIECE_BYTES)), gzip.compress(b"") * 9])
async def test_others_have_their_turn_while_a_little_becomes_much(body: bytes) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await inflated("gzip", body)
    task.cancel()
    assert turns >= 8


@pytest.mark.parametrize("body", [b"plain", gzip.compress(TEXT)[:-9], gzip.compress(TEXT) + b"more"])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_what_is_not_so_compressed_or_breaks_off(coding: str, body: bytes) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await inflated(coding, body)


async def test_an_empty_body_is_empty() -> None:
    assert await inflated("gzip") == []


async def test_other_codings() -> None:
    assert inflating({}) is None
    assert inflating({"Content-Encoding": "identity"}) is None
    for body in ((), (b"x",)):
        with pytest.raises(HttpProcessingError, match="coded as br"):
            await inflated("br", *body)
