"""Streams an answer as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Protocol

import orjson
from aiohttp import web

from polyroute.core.call import Call
from polyroute.core.event import Event, Finished, Route, Started, Token, Whole
from polyroute.routing.gateway import Gateway
from polyroute.routing.streams import generator
from polyroute.server.answers import BrokenStream
from polyroute.server.rest.failures import FailureBody, failure, known
from polyroute.server.rest.frame import FRAME
from polyroute.server.rest.routed import RoutedStream

MOST_AT_ONCE: Final = 64 * 1024
"""An answer that is there as a whole is written in pieces of about so many bytes."""

DONE = b"data: [DONE]\n\n"
"""The last event of OpenAI's streams; a stream that fails never has it."""


class Frames(Protocol):
    """How a dialect writes a stream: the bytes of each part."""

    def started(self, route: Route) -> bytes:
        """What comes before everything else."""
        ...

    def token(self, token: Token) -> bytes:
        """A token, as one event for each of its pieces; empty where the dialect has nothing to say of it."""
        ...

    def end(self, end: Finished) -> bytes:
        """The end."""
        ...

    def failed(self, body: FailureBody) -> bytes:
        """The stream cannot go on."""
        ...


def frame(body: object, name: str = "") -> bytes:
    """One server-sent event with `body` as its JSON."""
    head = f"event: {name}\n".encode() if name else b""
    return b"%sdata: %s\n\n" % (head, orjson.dumps(body))


class Texts:
    """Events that differ in one text only: `like` is one of them, whose `key` holds an empty string.

    What stands around the text is written once a stream, and not once an event.
    """

    __slots__ = ("_after", "_before")

    def __init__(self, like: bytes, key: str) -> None:
        # Found for certain: within a string of JSON each quotation mark follows a backslash.
        before, found, after = like.partition(b'"%s":""' % key.encode())
        self._before, self._after = before + found[:-2], after

    def of(self, token: Token) -> bytes:
        """The events of a token's text: one, or one for each of its pieces; none where there is no text."""
        if token.pieces:
            told, between = orjson.dumps(token.pieces), self._after + self._before  # which a stream need not hold
            if b"\\" in told:
                return b"".join((self._before, between.join(map(orjson.dumps, token.pieces)), self._after))
            # With none escaped, the quotation marks after the first are the ends and the beginnings of pieces, in turn.
            return b'%b"%b"%b' % (self._before, told[2:-2].replace(b'","', b'"%b"' % between), self._after)
        return self._before + orjson.dumps(token.text) + self._after if token.text else b""


async def stream(http: web.Request, gateway: Gateway, call: Call, frames: Frames) -> web.StreamResponse:
    """Answers with the call's events, each as soon as it is there; what is there at once goes out at once.

    Headers wait for the answer's beginning, so that an error before it has its own status. An error after it is told
    as an event, and then the connection ends without the end of the body: no client can take it for a whole answer.
    """
    async with aclosing(generator(gateway.generate(call))) as events:
        first = await anext(events, None)
        whole = first if isinstance(first, Whole) else None
        started = first if whole is None else whole.started
        if not isinstance(started, Started):
            raise BrokenStream(f"began with {type(first).__name__}")
        response = RoutedStream(http, started.route)
        response.hold(frames.started(started.route))
        try:
            end = await _sent(frames, whole, events, response)
        except ConnectionError:
            raise  # the caller has left
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must see that the answer is cut
            frame = http[FRAME]
            body = failure(known(error, frame.request_id), frame.request_id, frame.dialect)
            await response.send(frames.failed(body))
            response.break_off()
            return response
    await response.end(end)
    return response


async def _sent(
    frames: Frames, whole: Whole | None, events: AsyncGenerator[Event, None], response: RoutedStream
) -> bytes:
    """Writes what is there as a `whole` and what comes, but for the end, which is returned; and holds back the last of
    it where its end is there as well.

    So they leave together with the body's own end, and the end only once everything below says that the answer is
    whole.
    """
    end = b""
    if whole is not None:
        end = frames.end(whole.finished)
        await _send_all(frames, whole, response)
    async for event in events:
        if isinstance(event, Token):
            chunk, end = end + frames.token(event), b""
            if event.last:
                response.hold(chunk)
            elif chunk:
                await response.send(chunk)
        elif isinstance(event, Finished):
            end += frames.end(event)
    if not end:
        raise BrokenStream("ended without Finished")
    return end


async def _send_all(frames: Frames, whole: Whole, response: RoutedStream) -> None:
    """Writes the tokens of a whole answer, but for the last of them, which are held."""
    chunk = b""
    for token in whole.tokens:
        chunk += frames.token(token)
        if len(chunk) > MOST_AT_ONCE:
            await response.send(chunk)
            chunk = b""
    response.hold(chunk)
