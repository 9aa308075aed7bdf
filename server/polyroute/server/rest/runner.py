"""Runs the REST shim on aiohttp's server: the plain paths of calls go straight to what answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import hdrs, web

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]

PLAIN_PATHS: Final[web.AppKey[dict[str, Serve]]] = web.AppKey("plain_paths", dict)
"""The application's: what answers a `POST` of exactly such a path, its frame included."""


class RestRunner(web.AppRunner):
    """Runs an application of `build_rest`. A caller that leaves cancels its handler, and so the work below it.

    What is no plain path is the application's to answer: parts in a path, queries, other methods, `Expect`.
    `shutdown_timeout` is how long answers in progress may take when it ends, in seconds.
    """

    def __init__(self, app: web.Application, *, shutdown_timeout: float) -> None:
        super().__init__(app, handler_cancellation=True, access_log=None, shutdown_timeout=shutdown_timeout)

    async def _make_server(self) -> web.Server:
        application = await super()._make_server()
        serve = _before(self.app[PLAIN_PATHS], application.request_handler)
        made = _noted(application.request_factory)
        return _Server(serve, request_factory=made, handler_cancellation=True, access_log=None)


def _before(paths: dict[str, Serve], others: Any) -> Any:
    def serve(request: web.Request) -> Awaitable[web.StreamResponse]:
        found = paths.get(request.raw_path)
        if found is None or request.method != hdrs.METH_POST or hdrs.EXPECT in request.headers:
            found = others
        return found(request)

    return serve


def _noted(make: Any) -> Any:
    """Has a connection know of each request that is taken up before all of it has come."""

    def made(message: Any, body: Any, connection: _Connection, *more: Any) -> web.BaseRequest:
        if not body.is_eof():
            connection.behind = True
        request: web.BaseRequest = make(message, body, connection, *more)
        return request

    return made


class _Server(web.Server):
    """aiohttp's server, with connections of our kind."""

    def __init__(self, handler: Any, *, request_factory: Any, handler_cancellation: bool, **connection: Any) -> None:
        super().__init__(handler, request_factory=request_factory, handler_cancellation=handler_cancellation)
        self._connection = connection

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._connection)


class _Connection(web.RequestHandler):
    """One connection of a caller. `behind`: a request was taken up before all of it had come."""

    __slots__ = ("behind",)

    def __init__(self, server: web.Server, **more: Any) -> None:
        super().__init__(server, **more)
        self.behind = False

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Reads on after a pause.

        aiohttp 3.14 asks for that after each piece that is taken out of a body, paused or not, and goes through its
        parser each time. Once a connection is `behind`, that is needed: the parser counts such a request among those
        that wait, though it does not, and so may stop reading ahead one too early, where nothing else has it go on.
        """
        if self._reading_paused or self.behind:
            super().resume_reading(resume_parser)
