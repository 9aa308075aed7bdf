"""The event stream parser follows the specification, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polyroute.backends.remote.sse import MAX_LINE_BYTES, LineTooLong, SseParser


def parsed(*pieces: bytes) -> list[tuple[bytes, bytes]]:
    """The name and the data of each event."""
    parser = SseParser()
    return [(name, data) for piece in pieces for name, events in parser.feed(piece) for data in events]


def message(data: bytes, name: bytes = b"") -> tuple[bytes, bytes]:
    return name, data


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [message(b"a")]),
        (b"data: a\r\n\r\n", [message(b"a")]),
        (b"data: a\r\r", [message(b"a")]),
        (b"data:a\n\ndata:  b\n\n", [message(b"a"), message(b" b")]),
        (b"data: a\ndata: b\n\n", [message(b"a\nb")]),
        (b"data\n\n", [message(b"")]),
        (b"data\ndata\n\n", [message(b"\n")]),
        (b": a comment\n\ndata: a\n\n", [message(b"a")]),
        (b"event: error\ndata: a\n\ndata: b\n\n", [message(b"a", b"error"), message(b"b")]),
        (b"event: x\n\ndata: a\n\n", [message(b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [message(b"a")]),
        (b"id: 1\nretry: 5\nnonsense: x\nnonsense\ndata: a\n\n", [message(b"a")]),
        (b"data: a\n", []),
        (b"data: a", []),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_as_the_specification_has_it(stream: bytes, events: list[tuple[bytes, bytes]]) -> None:
    assert parsed(stream) == events


_LINES = st.lists(
    st.sampled_from(
        [b"data: one", b"data:two", b"data", b"event: error", b": note", b"", b"", b"id: 3", b"\xef\xbb\xbfdata: x"]
    ),
    max_size=20,
)
_ENDS = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=20, max_size=20)


@given(_LINES, _ENDS, st.lists(st.integers(0, 200), max_size=10))
@example([b"data: one", b"", b"data: one"], [b"\r\n"] * 20, list(range(30)))
def test_the_events_are_equal_however_the_bytes_are_cut(lines: list[bytes], ends: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert parsed(*pieces) == parsed(stream)
    assert parsed(*(stream[i : i + 1] for i in range(len(stream)))) == parsed(stream)


@given(_LINES, st.lists(st.integers(0, 200), max_size=10))
def test_whole_events_are_cut_out_as_they_would_be_line_by_line(lines: list[bytes], cuts: list[int]) -> None:
    """Where every line ends with a line feed, as nearly all do; byte by byte no event is ever whole in one piece."""
    stream = b"".join(line + b"\n" for line in lines)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert parsed(*pieces) == parsed(*(stream[i : i + 1] for i in range(len(stream))))


def test_a_piece_without_bytes_begins_no_stream() -> None:
    assert parsed(b"", b"\xef\xbb\xbfdata: a\n\n") == [message(b"a")]


@pytest.mark.parametrize(
    "odd", [b"data: b\ndata: c\n\n", b"data: b\n\n\n", b"data: b\n{}\n\n", b"id: data: 1\n\n", b": \n\n"]
)
def test_one_odd_event_among_plain_ones_is_read_as_it_is_by_itself(odd: bytes) -> None:
    plain = b"data: a\n\n"
    assert parsed(plain + odd + plain) == [*parsed(plain), *parsed(odd), *parsed(plain)]


def test_a_line_may_be_as_long_as_the_limit_and_no_longer() -> None:
    line = b"data:" + b"x" * (MAX_LINE_BYTES - 5)
    assert len(parsed(line + b"\n\n")[0][1]) == MAX_LINE_BYTES - 5
    with pytest.raises(LineTooLong):
        parsed(line + b"x")


def test_a_line_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(LineTooLong):
        parsed(*[b"x" * (MAX_LINE_BYTES // 2)] * 3)


def test_an_event_of_many_lines_is_refused_too() -> None:
    with pytest.raises(LineTooLong):
        parsed((b"data:" + b"x" * 1000 + b"\n") * 2000)


def test_what_came_before_a_line_that_is_too_long_is_given() -> None:
    events = iter(SseParser().feed(b"data: a\n\n" + b"x" * (MAX_LINE_BYTES + 1)))
    assert next(events) == (b"", (b"a",))
    with pytest.raises(LineTooLong):
        next(events)


def test_plain_events_come_together_whatever_is_cut_off_on_both_sides() -> None:
    parser = SseParser()
    plain = b"data: a\n\ndata: b\n\n"
    assert list(parser.feed(plain)) == [(b"", [b"a", b"b"])]
    assert list(parser.feed(plain + b"data: c")) == [(b"", [b"a", b"b"])]
    assert list(parser.feed(b"d\n\n" + plain + b"data: e\n")) == [(b"", (b"cd",)), (b"", [b"a", b"b"])]
