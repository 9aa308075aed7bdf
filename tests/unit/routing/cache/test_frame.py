"""An entry comes back as it went in; whatever was changed, cut, foreign or made to burst is refused."""

from __future__ import annotations

import pickle
import struct
import zlib
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from polyroute.routing.cache.frame import (
    BEGINNING_BYTES,
    COMPRESS_FROM,
    FORMAT,
    header_of,
    pack,
    payload_of,
    relabelled,
)
from polyroute.routing.cache.terms import MAX_ANSWER_BYTES, Moment
from polyroute.routing.cache.tier import Label

LABEL = Label("Model/Ü", "v 1", Moment(2**40, 2**41))
HEADER_BYTES = len(pack(b"", LABEL))


def unpacked(entry: bytes) -> bytes:
    return payload_of(entry, header_of(entry))


@given(st.binary(max_size=4 * COMPRESS_FROM))
def test_what_is_packed_comes_back(payload: bytes) -> None:
    entry = pack(payload, LABEL)
    header = header_of(entry)
    assert payload_of(entry, header) == payload
    assert header.label == LABEL
    assert len(entry) <= HEADER_BYTES + len(payload)


def test_large_values_are_compressed_where_that_pays() -> None:
    text = b"word " * 1000
    assert len(pack(text, LABEL)) < len(text) / 10
    assert not header_of(pack(text[: COMPRESS_FROM - 1], LABEL)).compressed
    assert header_of(pack(text[:COMPRESS_FROM], LABEL)).compressed


@given(st.binary(min_size=1, max_size=3000), st.data())
def test_a_change_of_the_value_is_seen(payload: bytes, data: st.DataObject) -> None:
    entry = bytearray(pack(payload, LABEL))
    at = data.draw(st.integers(HEADER_BYTES, len(entry) - 1))
    entry[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="as it was written"):
        unpacked(bytes(entry))


@given(st.binary(min_size=1, max_size=3000), st.data())
def test_no_change_whatever_gives_another_value(payload: bytes, data: st.DataObject) -> None:
    entry = pack(payload, LABEL)
    damaged = data.draw(st.one_of(st.binary(max_size=200), st.integers(0, len(entry) - 1).map(lambda n: entry[:n])))
    with suppress(ValueError):
        assert unpacked(damaged) == payload


@pytest.mark.parametrize(
    "entry", [b"", b"x", pickle.dumps({"a": 1}), b"PRA", b"\0" * 100, b"PRA\x01" + b"\0" * 100, b"{}" * 50]
)
def test_foreign_bytes_are_refused(entry: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any message
        unpacked(entry)


def forged(body: bytes, plain: int, *, flags: int = 1, format_: int = FORMAT) -> bytes:
    """An entry whose header is in order."""
    head = struct.pack("<3sBBHHQQII", b"PRA", format_, flags, 1, 1, 0, 0, plain, zlib.crc32(body))
    return head + b"mv" + body


@pytest.mark.parametrize(
    "entry",
    [
        forged(zstandard.compress(b"x" * 100), 100, format_=FORMAT + 1),
        forged(zstandard.compress(b"x" * 100), 100, flags=2),
        forged(zstandard.compress(b"x" * 100), 99),
        forged(zstandard.compress(b"x" * 100), 100) + b"more",
        forged(zstandard.compress(b"x" * 100) + b"more", 100),
        forged(b"no zstd", 100),
        forged(b"plain", 6, flags=0),
    ],
    ids=["format", "flags", "size", "more", "extra data", "no zstd", "plain size"],
)
def test_a_header_that_does_not_fit_is_refused(entry: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any message
        unpacked(entry)


def test_a_bomb_is_refused_before_it_takes_any_room() -> None:
    bomb = zstandard.compress(b"\0" * (64 * MAX_ANSWER_BYTES))
    assert len(bomb) < 100_000
    for plain in (100, MAX_ANSWER_BYTES, MAX_ANSWER_BYTES + 1):
        with pytest.raises(ValueError, match=r"claims another size|makes no sense"):
            unpacked(forged(bomb, plain))


def test_a_bomb_that_hides_its_size_is_refused() -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    with pytest.raises(ValueError, match="claims another size"):
        unpacked(forged(compressor.compress(b"\0" * (4 * MAX_ANSWER_BYTES)), 100))


@given(st.text(max_size=300), st.text(max_size=300), st.binary(max_size=2000))
def test_the_beginning_of_an_entry_tells_whose_it_is(model: str, version: str, payload: bytes) -> None:
    label = Label(model, version, Moment(1, 2))
    entry = pack(payload, label)
    assert header_of(entry[:BEGINNING_BYTES]).label == label
    other = relabelled(entry, header_of(entry), LABEL)
    assert (header_of(other).label, unpacked(other)) == (LABEL, payload)
