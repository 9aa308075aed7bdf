"""One request and its answer: from bytes to tokens, each as soon as it is there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from functools import partial
from typing import Final

from polyroute.backends.remote.connection import Response
from polyroute.backends.remote.dialect import AnsweredError, AnswerReader, Malformed
from polyroute.backends.remote.peer import Peer
from polyroute.backends.remote.sse import MAX_LINE_BYTES, LineTooLong, ServerSentEvent, SseParser
from polyroute.core.event import Finished, Token

NOTHING: Final = Token()
"""Stands for an answer that has begun without text."""
MAX_WHOLE_BYTES: Final = 32 * 1024 * 1024
"""Largest answer that is taken in one piece."""


def answer(peer: Peer, response: Response, reader: AnswerReader) -> AsyncGenerator[Token | Finished, None]:
    """The tokens of a 2xx answer and then its end. An answer without its end raises `PeerFailed`."""
    kind = response.headers.get("Content-Type", "no type").partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return _streamed(peer, response, reader)
    if kind == "application/json" or kind.endswith("+json"):
        return _whole(peer, response, reader)
    return _foreign(peer, response, kind)


async def _streamed(peer: Peer, response: Response, reader: AnswerReader) -> AsyncGenerator[Token | Finished, None]:
    parser = SseParser()
    while piece := await peer.read(response):
        for token in _tokens(peer, parser, piece, reader):
            yield token
        if reader.done:
            break
    await peer.drain(response)
    yield _finished(peer, reader)


async def _foreign(peer: Peer, response: Response, kind: str) -> AsyncGenerator[Token | Finished, None]:
    beginning = await peer.read(response)
    raise peer.failed(f"answered with {kind} instead of an event stream or JSON", beginning)
    yield  # which makes this a generator


def _finished(peer: Peer, reader: AnswerReader) -> Finished:
    try:
        return reader.finished()
    except Malformed as error:
        raise peer.failed(f"its answer {error}") from error


def _tokens(peer: Peer, parser: SseParser, piece: bytes, reader: AnswerReader) -> Iterator[Token]:
    """The tokens in one piece, text that comes together as one; `NOTHING` where the answer begins without text."""
    texts: list[str] = []
    try:
        for event in parser.feed(piece):
            text = reader.text(event)
            if text is None:
                if texts:
                    yield _together(texts)
                    texts = []
                yield from _event(peer, event, reader)
                if reader.done:
                    return
            elif text:
                texts.append(text)
    except LineTooLong as error:
        if texts:
            yield _together(texts)
        raise peer.failed(f"sent an event of more than {MAX_LINE_BYTES} bytes") from error
    if texts:
        yield _together(texts)


def _together(texts: list[str]) -> Token:
    return Token(texts[0]) if len(texts) == 1 else Token("".join(texts), pieces=tuple(texts))


def _event(peer: Peer, event: ServerSentEvent, reader: AnswerReader) -> Iterator[Token]:
    """What an event brings that may be more than text."""
    silent = not reader.begun
    for token in _checked(peer, partial(reader.event, event.name, event.data), event.data):
        silent = False
        yield token
    if silent and reader.begun:
        yield NOTHING


async def _whole(peer: Peer, response: Response, reader: AnswerReader) -> AsyncGenerator[Token | Finished, None]:
    body = bytearray()
    while piece := await peer.read(response):
        body += piece
        if len(body) > MAX_WHOLE_BYTES:
            raise peer.failed(f"sent an answer of more than {MAX_WHOLE_BYTES} bytes")
    data = bytes(body)
    for token in _checked(peer, partial(reader.whole, data), data):
        yield token
    yield _finished(peer, reader)


def _checked(peer: Peer, read: Callable[[], Iterable[Token]], data: bytes) -> Iterator[Token]:
    """What `read` gives, with what it raises told as the peer's failure."""
    try:
        yield from read()
    except Malformed as error:
        raise peer.failed(f"its answer {error}", data) from error
    except AnsweredError as error:
        # Not chained: the message is told here, and there with whatever secret the peer quotes.
        raise peer.failed("told an error amid its answer", str(error) or data) from None
