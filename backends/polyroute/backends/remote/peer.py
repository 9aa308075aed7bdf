"""The connection to one peer: sends requests, and gives answers whose errors are the core's own."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Hashable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import aiohttp
import orjson
from aiohttp.http import HttpProcessingError
from yarl import URL

from polyroute.backends.remote.connection import Connections, KeptConnectionLost, Response
from polyroute.backends.remote.credentials import Credentials
from polyroute.backends.remote.failures import QUOTE_CHARS, status_failure, transport_failure
from polyroute.backends.remote.http_request import HttpRequests
from polyroute.backends.remote.names import url_at
from polyroute.core.call import Call
from polyroute.core.config import RemoteConfig
from polyroute.core.errors import DeadlineExceeded, Draining, InvalidArgument, PeerFailed, PeerUnreachable, clip
from polyroute.core.request import CacheMode

SILENCE_S: Final = 300.0
"""Longest silence of a peer amid its answer, where the model has no `timeout`, in seconds."""
MAX_TIMEOUT_MS: Final = 24 * 3600 * 1000
_ERROR_BYTES = 16 * 1024
_ERROR_WAIT_S = 2.0
_DRAIN_WAIT_S = 0.25

_BROKEN = (aiohttp.ClientError, HttpProcessingError, OSError, RuntimeError)
"""What reading a body raises: TimeoutError is an OSError, and aiohttp tells a lost connection as RuntimeError too."""

T = TypeVar("T")


class Peer:
    """One peer at `base_url`; `where` names it in messages.

    With an `address` the URL's host is not looked up, but is that IP address; `Host` and TLS keep to the name.
    Connections are kept and shared between calls, without limit: permits are the limit. Proxies from the environment,
    redirects and cookies are not followed or kept.
    """

    def __init__(self, config: RemoteConfig, base_url: str, address: str | None = None) -> None:
        self.where = f"`{config.id}` at {base_url if address is None else url_at(base_url, address)}"
        self._address = address
        self._root = base_url.removesuffix("/v1")
        self._requests = HttpRequests(self._root)
        self._credentials = Credentials(config)
        self.same: Hashable = (self._root, address, config.api_key, frozenset(config.headers.items()), config.tls)
        """Equal for peers that are one: at the same place, and told the same of who asks."""
        self._tls_config = config.tls
        self.adopt(config)
        self._closed = False
        self._kept: Connections | None = None
        self._fresh: Connections | None = None

    def adopt(self, config: RemoteConfig) -> None:
        """Takes on the timeouts, for requests to come."""
        self._silence_s = config.timeout or SILENCE_S
        self._timeout = aiohttp.ClientTimeout(connect=config.connect_timeout, sock_read=self._silence_s)

    @property
    def url(self) -> URL:
        """Where it is; raises ValueError where that is no URL."""
        return URL(self._root)

    async def send(
        self,
        method: str,
        path: str,
        *,
        call: Call | None = None,
        body: Mapping[str, Any] | None = None,
        keep: bool = True,
    ) -> Response:
        """The beginning of the answer, whatever its status; it ends by the call's deadline. To be closed by the caller.

        Without `keep` the peer is asked to close the connection afterwards.
        Raises `PeerUnreachable` where there is none, `PeerFailed` where it is not HTTP, `DeadlineExceeded`.
        """
        deadline = None if call is None else call.deadline
        own = {} if call is None else _call_headers(call)
        if not keep:
            own["Connection"] = "close"
        written = partial(
            self._requests.written,
            method,
            path,
            configured=await self._credentials.headers(),
            content=None if body is None else _json(body),
        )
        try:
            try:
                return await self._connections(fresh=False).send(written(own=own), self._timeout, deadline)
            except KeptConnectionLost:
                own["Connection"] = "close"
                return await self._connections(fresh=True).send(written(own=own), self._timeout, deadline)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            raise self._failure(error, answering=False) from error

    async def read(self, response: Response) -> bytes:
        """The next piece of the answer's body, empty at its end; raises `PeerFailed`, `DeadlineExceeded`."""
        try:
            return await response.read()
        except _BROKEN as error:
            raise self._failure(error, answering=True) from error

    async def drain(self, response: Response) -> None:
        """Waits shortly for the end of an answer that is already complete, so that its connection can be kept."""
        try:
            async with asyncio.timeout(_DRAIN_WAIT_S):
                while await response.read():
                    pass
        except (*_BROKEN, DeadlineExceeded):
            response.close()

    async def refusal(self, response: Response) -> Exception:
        """The error that an answer with a status other than 2xx stands for; closes the answer."""
        beginning = bytearray()
        try:
            async with asyncio.timeout(_ERROR_WAIT_S):
                while len(beginning) < _ERROR_BYTES and (piece := await response.read()):
                    beginning += piece
        except (*_BROKEN, DeadlineExceeded):
            pass  # what came until then is all there is to quote
        response.close()
        text = self._credentials.redact(beginning[:_ERROR_BYTES].decode(errors="replace"))
        return status_failure(response.status, response.headers, text, self.where)

    def failed(self, problem: str, answer: bytes | str = b"") -> PeerFailed:
        """`PeerFailed` for an answer with this problem, which is quoted, cut and free of secrets."""
        text = answer if isinstance(answer, str) else answer[: 64 * QUOTE_CHARS].decode(errors="replace")
        quoted = clip(self._credentials.redact(text), QUOTE_CHARS)
        error = PeerFailed(f"{self.where}: {problem}{': ' if quoted else ''}{quoted}")
        error.quoted = quoted
        return error

    async def within(self, call: Call | None, step: Awaitable[T]) -> T:
        """`step`, no longer than until the call's deadline; raises `DeadlineExceeded`."""
        if call is None or call.deadline is None:
            return await step
        limit = asyncio.timeout(call.remaining_s(time.monotonic()))
        try:
            async with limit:
                return await step
        except TimeoutError as error:
            if limit.expired():
                raise self._late() from error
            raise

    async def close(self) -> None:
        """Closes every connection, those of calls in flight too, which fail with `Draining`."""
        self._closed = True
        for connections in (self._kept, self._fresh):
            if connections is not None:
                await connections.close()

    def _failure(self, error: Exception, *, answering: bool) -> Exception:
        if self._closed:
            return Draining(f"{self.where}: is being left")
        if isinstance(error, HttpProcessingError):  # it quotes what came: our own request, from one that echoes
            error.message = self._credentials.redact(error.message)
        return transport_failure(error, self.where, answering=answering, silence_s=self._silence_s)

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self.where}: the deadline has passed")

    def _connections(self, *, fresh: bool) -> Connections:
        """The connections that are kept; or those that are made anew for each request."""
        if self._closed:
            raise Draining(f"{self.where}: was left")
        if fresh:
            if self._fresh is None:
                self._fresh = self._opened(keep=False)
            return self._fresh
        if self._kept is None:
            self._kept = self._opened(keep=True)
        return self._kept

    def _opened(self, *, keep: bool) -> Connections:
        try:
            return Connections(self.url, address=self._address, tls=self._tls(), keep=keep, late=self._late)
        except ValueError as error:
            raise aiohttp.InvalidURL(self._root) from error

    def _tls(self) -> ssl.SSLContext | bool:
        """How the peer's certificate is checked: True is the system's way, False not at all."""
        tls = self._tls_config
        if not tls.verify or tls.ca_file is None:
            return tls.verify
        try:
            return ssl.create_default_context(cafile=tls.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise PeerUnreachable(f"{self.where}: tls.ca_file cannot be used: {error.strerror or error}") from error


def _call_headers(call: Call) -> dict[str, str]:
    headers = {"X-Request-ID": call.request_id, **call.trace.headers()}
    cache = call.request.cache
    if cache.mode in (CacheMode.BYPASS, CacheMode.REFRESH):  # or a Polyroute would answer from its own cache
        headers["X-Polyroute-Cache"] = cache.mode.name.lower()
    if cache.max_age_s is not None:
        headers["X-Polyroute-Cache-Max-Age"] = f"{cache.max_age_s:.3f}"
    remaining = call.remaining_s(time.monotonic())
    if remaining is not None:
        headers["X-Polyroute-Timeout-Ms"] = str(min(max(1, int(remaining * 1000)), MAX_TIMEOUT_MS))
    return headers


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, default=dict)
    except TypeError as error:
        raise InvalidArgument("", "the request cannot be written as JSON") from error
