"""Streams an answer as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

import orjson
from aiohttp import web
from msgspec.structs import replace

from polyroute.core.call import Call
from polyroute.core.event import Event, Finished, Route, Started, Whole
from polyroute.routing.gateway import Gateway
from polyroute.routing.streams import generator
from polyroute.server.answers import BrokenStream
from polyroute.server.rest.answer_headers import route_headers
from polyroute.server.rest.call_headers import REQUEST_ID
from polyroute.server.rest.edge import DIALECT, always
from polyroute.server.rest.failures import FailureBody, failure, known
from polyroute.server.rest.sending import send

_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

DONE = b"data: [DONE]\n\n"
"""The last event of OpenAI's streams; a stream that fails never has it."""


class Frames(Protocol):
    """How a dialect writes a stream: the bytes of each part."""

    def started(self, route: Route) -> bytes:
        """What comes before everything else."""
        ...

    def event(self, event: Event) -> bytes:
        """A token or the end; empty where the dialect has nothing to say."""
        ...

    def failed(self, body: FailureBody) -> bytes:
        """The stream cannot go on."""
        ...


def frame(body: object, name: str = "") -> bytes:
    """One server-sent event with `body` as its JSON."""
    head = f"event: {name}\n".encode() if name else b""
    return b"%sdata: %s\n\n" % (head, orjson.dumps(body))


async def stream(http: web.Request, gateway: Gateway, call: Call, frames: Frames) -> web.StreamResponse:
    """Answers with the call's events, each as soon as it is there.

    Headers wait for the answer's beginning, so that an error before it has its own status. An error after it is told
    as an event, and then the connection ends without the end of the body: no client can take it for a whole answer.
    """
    call = replace(call, entrance=replace(call.entrance, streams=True))
    async with _begun(gateway, call) as (route, events):
        response = web.StreamResponse(headers={**_HEADERS, **always(http), **route_headers(route)})
        await response.prepare(http)
        try:
            if chunk := frames.started(route):
                await send(http, response, chunk)
            complete = False
            async for event in events:
                complete = isinstance(event, Finished)
                if chunk := frames.event(event):
                    await send(http, response, chunk)
            if not complete:
                raise BrokenStream("ended without Finished")
        except ConnectionError:
            raise  # the caller has left
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must see that the answer is cut
            found = known(error, http[REQUEST_ID])
            await send(http, response, frames.failed(failure(found, http[REQUEST_ID], http[DIALECT])))
            _break_off(http)
            return response
    await response.write_eof()
    return response


@asynccontextmanager
async def _begun(gateway: Gateway, call: Call) -> AsyncIterator[tuple[Route, AsyncGenerator[Event, None]]]:
    """The route and the events after it, once the answer has begun; closed with the block."""
    async with aclosing(generator(gateway.generate(call))) as events:
        first = await anext(events, None)
        if isinstance(first, Started):
            yield first.route, events
        elif isinstance(first, Whole):
            async with aclosing(_parts(first, events)) as parts:
                yield first.started.route, parts
        else:
            raise BrokenStream(f"began with {type(first).__name__}")


async def _parts(whole: Whole, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """What follows the beginning of a whole answer."""
    for token in whole.tokens:
        yield token
    yield whole.finished
    async for event in events:  # none: who comes back for more has taken all of it
        yield event


def _break_off(http: web.Request) -> None:
    """Sends what was written and closes the connection in the middle of the body."""
    if http.transport is not None:
        http.transport.close()
