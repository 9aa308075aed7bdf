"""What is there at once leaves at once, and the end only with the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polyroute.core.call import Call
from polyroute.core.errors import PeerFailed
from polyroute.core.event import Event, Finished, FinishReason, Route, Started, Token, Whole
from polyroute.core.request import Request
from polyroute.server.answers import BrokenStream
from polyroute.server.rest import sse
from polyroute.server.rest.routed import RoutedStream
from polyroute.server.rest.sse import Texts, frame
from tests.unit.server.rest.asking import asked, writes

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
END = Finished(FinishReason.STOP)


@example("", [","])
@example("", [",", "a", ",", ",", ""])
@example("", ["", "", ","])
@example("", ['"', ",", "\\"])
@given(TEXT, st.lists(TEXT | st.text('",\\'), min_size=1, max_size=6))
def test_frames_of_texts_are_those_that_would_be_written_one_by_one(name: str, texts: list[str]) -> None:
    def whole(text: str) -> bytes:
        return frame({"id": name, "choices": [{"content": text}], "model": '"content":""'}, "delta")

    written = Texts(whole(""), "content")
    assert written.of(Token("".join(texts), pieces=tuple(texts))) == b"".join(map(whole, texts))
    assert written.of(Token(texts[0])) == (whole(texts[0]) if texts[0] else b"")


class Plain:
    """Frames that can be read off."""

    def started(self, _route: Any) -> bytes:
        return b"<"

    def token(self, token: Token) -> bytes:
        return token.text.encode()

    def end(self, _end: Finished) -> bytes:
        return b">"

    def failed(self, _body: Any) -> bytes:
        return b"!"


class Written:
    """Takes what is written."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.held = b"<"

    def hold(self, events: bytes) -> None:
        self.held += events

    async def send(self, events: bytes) -> None:
        self.chunks.append(self.held + events)
        self.held = b""


async def sent(there: tuple[Token, ...] | None, *coming: Event) -> tuple[list[bytes], bytes]:
    """What leaves by itself, and what leaves with the end."""

    async def events() -> AsyncGenerator[Event, None]:
        for event in coming:
            yield event

    written = Written()
    whole = None if there is None else Whole(Started(Route()), there, END)
    end = await sse._sent(Plain(), whole, events(), cast("RoutedStream", written))
    return written.chunks, written.held + end


async def test_the_beginning_leaves_with_the_first_token_and_each_token_by_itself() -> None:
    assert await sent(None, Token("a"), Token(""), Token("b"), END) == ([b"<a", b"b"], b">")


async def test_the_last_token_leaves_with_the_end_where_that_is_there() -> None:
    assert await sent(None, Token("a"), Token("b", last=True), END) == ([b"<a"], b"b>")
    assert await sent(None, Token("a", last=True), END) == ([], b"<a>")


async def test_an_answer_that_is_there_leaves_at_once() -> None:
    assert await sent((Token("a"), Token("b"))) == ([], b"<ab>")


async def test_a_long_one_leaves_in_parts() -> None:
    text = "x" * (sse.MOST_AT_ONCE + 1)
    chunks, last = await sent((Token(text), Token("b"), Token(text)))
    assert [len(chunk) for chunk in chunks] == [len(text) + 1, len(text) + 1]
    assert last == b">"


async def test_without_its_end_an_answer_is_broken() -> None:
    with pytest.raises(BrokenStream):
        await sent(None, Token("a"))


async def test_what_waited_for_the_end_leaves_before_an_error_that_comes_instead() -> None:
    class Gateway:
        async def generate(self, _call: Call) -> AsyncGenerator[Event, None]:
            yield Started(Route())
            yield Token("a", last=True)
            raise PeerFailed("broke off")

    http = asked()
    response = await sse.stream(http, cast(Any, Gateway()), Call(Request(), "r"), Plain())
    assert b"".join(writes(http)).endswith(b"\r\n<a!\r\n")
    assert not response.keep_alive
