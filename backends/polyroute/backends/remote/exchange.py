"""The answer to one request as it comes: from bytes to tokens, each as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from polyroute.backends.remote.connection import Response
from polyroute.backends.remote.dialect import AnsweredError, AnswerReader, Malformed
from polyroute.backends.remote.peer import Peer
from polyroute.backends.remote.sse import MAX_LINE_BYTES, LineTooLong, ServerSentEvents, SseParser
from polyroute.core.errors import PolyrouteError, clip
from polyroute.core.event import Finished, Token

NOTHING: Final = Token()
"""Stands for an answer that has begun without text."""
MAX_WHOLE_BYTES: Final = 32 * 1024 * 1024
"""Largest answer that is taken in one piece."""
_KIND_CHARS = 80
_AT_ONCE = 256  # events that are read together: what is left of them is copied for each that is unlike the others


class Incoming:
    """A 2xx answer of a peer, read by `reader`: its tokens, and then its end.

    Both raise `PeerFailed` for an answer that makes no sense, that breaks off or that has no end; `DeadlineExceeded`.
    """

    __slots__ = ("_failure", "_kind", "_parser", "_peer", "_reader", "_response")

    def __init__(self, peer: Peer, response: Response, reader: AnswerReader) -> None:
        self._peer = peer
        self._response = response
        self._reader = reader
        self._parser = SseParser()
        self._failure: PolyrouteError | None = None
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self._kind = kind or "no type"

    def __repr__(self) -> str:
        return f"<Incoming {self._kind} {'done' if self._reader.done else 'coming'}>"

    async def tokens(self) -> Sequence[Token]:
        """The next ones, none once there are no more; `NOTHING` where the answer begins without any."""
        if self._failure is not None:
            raise self._failure
        if self._reader.done:
            return ()
        if self._kind == "text/event-stream":
            return await self._streamed()
        if self._kind == "application/json" or self._kind.endswith("+json"):
            return await self._whole()
        beginning = await self._peer.read(self._response)
        kind = clip(self._kind, _KIND_CHARS)
        raise self._peer.failed(f"answered with {kind} instead of an event stream or JSON", beginning)

    async def finished(self) -> Finished:
        """The end, once there are no more tokens."""
        if not self._response.complete:  # it is, as a rule
            await self._peer.drain(self._response)
        try:
            return self._reader.finished()
        except Malformed as error:
            raise self._peer.failed(f"its answer {error}") from error

    async def _streamed(self) -> Sequence[Token]:
        tokens: list[Token] = []
        while not tokens and not self._reader.done and (piece := await self._peer.read(self._response)):
            begun = self._reader.begun
            try:
                self._take(piece, tokens)
            except PolyrouteError as error:
                if not tokens:
                    raise
                self._failure = error  # what came before it is passed on first
            if not tokens and self._reader.begun and not begun:
                tokens.append(NOTHING)
        if self._reader.done and self._response.complete and tokens and tokens[-1] is not NOTHING:
            tokens[-1] = replace(tokens[-1], last=True)
        return tokens

    def _take(self, piece: bytes, tokens: list[Token]) -> None:
        """Adds the tokens in one piece of an event stream, text that comes together as one."""
        reader, texts = self._reader, list[str]()
        try:
            for name, events in _in_parts(self._parser.feed(piece)):
                while events and not reader.done:
                    if not name:
                        read = reader.texts(events)
                        texts += filter(None, read)
                        events = events[len(read) :]
                    if events and not reader.done:
                        if texts:
                            tokens.append(_together(texts))
                            texts = []
                        tokens.extend(self._checked(partial(reader.event, name, events[0]), events[0]))
                        events = events[1:]
                if reader.done:
                    return
        except LineTooLong as error:
            raise self._peer.failed(f"sent an event of more than {MAX_LINE_BYTES} bytes") from error
        finally:
            if texts:
                tokens.append(_together(texts))

    async def _whole(self) -> Sequence[Token]:
        body = bytearray()
        while piece := await self._peer.read(self._response):
            body += piece
            if len(body) > MAX_WHOLE_BYTES:
                raise self._peer.failed(f"sent an answer of more than {MAX_WHOLE_BYTES} bytes")
        data = bytes(body)
        return tuple(self._checked(partial(self._reader.whole, data), data))

    def _checked(self, read: Callable[[], Iterable[Token]], data: bytes) -> Iterator[Token]:
        """What `read` gives, with what it raises told as the peer's failure."""
        try:
            yield from read()
        except Malformed as error:
            raise self._peer.failed(f"its answer {error}", data) from error
        except AnsweredError as error:
            # Not chained: the message is told here, and there with whatever secret the peer quotes.
            raise self._peer.failed("told an error amid its answer", str(error) or data) from None


def _in_parts(events: Iterable[ServerSentEvents]) -> Iterator[ServerSentEvents]:
    """The same events, at most `_AT_ONCE` together."""
    for name, some in events:
        for start in range(0, len(some), _AT_ONCE):
            yield name, some[start : start + _AT_ONCE]


def _together(texts: list[str]) -> Token:
    return Token(texts[0]) if len(texts) == 1 else Token("".join(texts), pieces=tuple(texts))
