"""The connection to one peer: sends requests, and gives answers whose errors are the core's own."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import aiohttp
import orjson
from yarl import URL

from polyroute.backends.remote.connection import Answer, KeptConnectionLost
from polyroute.backends.remote.credentials import Credentials
from polyroute.backends.remote.failures import QUOTE_CHARS, status_failure, transport_failure
from polyroute.backends.remote.names import Fixed, url_at
from polyroute.core.call import Call
from polyroute.core.config import RemoteConfig
from polyroute.core.errors import DeadlineExceeded, Draining, InvalidArgument, PeerFailed, PeerUnreachable, clip
from polyroute.core.request import CacheMode

SILENCE_S: Final = 300.0
"""Longest silence of a peer amid its answer, where the model has no `timeout`, in seconds."""
MAX_HEADER_BYTES: Final = 16 * 1024
MAX_TIMEOUT_MS: Final = 24 * 3600 * 1000
_ERROR_BYTES = 16 * 1024
_ERROR_WAIT_S = 2.0
_DRAIN_WAIT_S = 0.25
_KEEPALIVE_S = 30.0

_BROKEN = (aiohttp.ClientError, OSError, RuntimeError)
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
        self._urls: dict[str, URL] = {}
        self._credentials = Credentials(config)
        self._tls_config = config.tls
        self.adopt(config)
        self._closed = False
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    def adopt(self, config: RemoteConfig) -> None:
        """Takes on the timeouts, for requests to come."""
        self._silence_s = config.timeout or SILENCE_S
        self._timeout = aiohttp.ClientTimeout(total=None, connect=config.connect_timeout, sock_read=self._silence_s)

    async def send(
        self,
        method: str,
        path: str,
        *,
        call: Call | None = None,
        body: Mapping[str, Any] | None = None,
        keep: bool = True,
    ) -> aiohttp.ClientResponse:
        """The beginning of the answer, whatever its status. To be closed by the caller.

        Without `keep` the peer is asked to close the connection afterwards.
        Raises `PeerUnreachable` where there is none, `PeerFailed` where it is not HTTP, `DeadlineExceeded`.
        """
        headers = {**_call_headers(call), **await self._credentials.headers()}
        if not keep:
            headers["Connection"] = "close"
        content = None
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
            content = _json(body)
        try:
            try:
                return await self._asked(call, method, path, headers, content, fresh=False)
            except KeptConnectionLost:
                return await self._asked(call, method, path, headers, content, fresh=True)
        except (aiohttp.ClientError, OSError) as error:
            raise self._failure(error, answering=False) from error

    def _asked(
        self,
        call: Call | None,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: bytes | None,
        *,
        fresh: bool,
    ) -> Awaitable[aiohttp.ClientResponse]:
        session = self._session(fresh=fresh)
        return self.within(
            call,
            session.request(
                method, self._url(path), headers=headers, data=content, timeout=self._timeout, allow_redirects=False
            ),
        )

    def _url(self, path: str) -> URL | str:
        """The URL, parsed once for each of the few paths; as text where it is none, which is for aiohttp to tell."""
        url = self._urls.get(path)
        if url is None:
            try:
                url = self._urls[path] = URL(self._root + path)
            except ValueError:
                return self._root + path
        return url

    async def pieces(self, response: aiohttp.ClientResponse, call: Call | None = None) -> AsyncGenerator[bytes, None]:
        """The answer's body in the pieces that it comes in; raises `PeerFailed`, `DeadlineExceeded`."""
        content = response.content
        closed, tell = _closed(response), partial(_tell_loss, content)
        if closed is not None:
            closed.add_done_callback(tell)
        try:
            while True:
                try:
                    piece = await self.within(call, content.readany())
                except _BROKEN as error:
                    raise self._failure(error, answering=True) from error
                if not piece:
                    return
                yield piece
        finally:
            if closed is not None:
                closed.remove_done_callback(tell)

    async def drain(self, response: aiohttp.ClientResponse) -> None:
        """Waits shortly for the end of an answer that is already complete, so that its connection can be kept."""
        if response.content.is_eof():  # there already, as a rule
            return
        try:
            async with asyncio.timeout(_DRAIN_WAIT_S):
                while await response.content.readany():
                    pass
        except _BROKEN:
            response.close()

    async def refusal(self, response: aiohttp.ClientResponse) -> Exception:
        """The error that an answer with a status other than 2xx stands for; closes the answer."""
        beginning = bytearray()
        try:
            async with asyncio.timeout(_ERROR_WAIT_S):
                while len(beginning) < _ERROR_BYTES and (piece := await response.content.readany()):
                    beginning += piece
        except _BROKEN:
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
                raise DeadlineExceeded(f"{self.where}: the deadline has passed") from error
            raise

    async def close(self) -> None:
        """Closes every connection, those of calls in flight too, which fail with `Draining`."""
        self._closed = True
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()

    def _failure(self, error: Exception, *, answering: bool) -> Exception:
        if self._closed:
            return Draining(f"{self.where}: is being left")
        return transport_failure(error, self.where, answering=answering, silence_s=self._silence_s)

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        """The session whose connections are kept; or the one that makes a new connection for each request."""
        if self._closed:
            raise Draining(f"{self.where}: was left")
        if fresh:
            if self._fresh is None:
                self._fresh = self._open(force_close=True)
            return self._fresh
        if self._kept is None:
            self._kept = self._open(keepalive_timeout=_KEEPALIVE_S)
        return self._kept

    def _open(self, **keeping: Any) -> aiohttp.ClientSession:
        resolver = None if self._address is None else Fixed(self._address)
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls(), resolver=resolver, **keeping)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "polyroute", "Accept-Encoding": "identity"},
            max_field_size=MAX_HEADER_BYTES,
            response_class=Answer,
            trust_env=False,
        )

    def _tls(self) -> ssl.SSLContext | bool:
        """How the peer's certificate is checked: True is the system's way, False not at all."""
        tls = self._tls_config
        if not tls.verify or tls.ca_file is None:
            return tls.verify
        try:
            return ssl.create_default_context(cafile=tls.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise PeerUnreachable(f"{self.where}: tls.ca_file cannot be used: {error.strerror or error}") from error


def _closed(response: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
    """What is done once the connection of an answer is; None where the answer has been read to its end."""
    connection = response.connection
    protocol = None if connection is None else connection.protocol
    return None if protocol is None else protocol.closed


def _tell_loss(content: aiohttp.StreamReader, closed: asyncio.Future[None]) -> None:
    """A connection that is lost ends the body with an error, whatever the reason.

    aiohttp 3.14 forgets that where a later piece of the body breaks HTTP's framing, and its reader waits for ever.
    """
    closed.exception()  # retrieved here, or it would be reported as unheard
    if not content.is_eof() and content.exception() is None:
        content.set_exception(aiohttp.ClientPayloadError("the connection was lost"))


def _call_headers(call: Call | None) -> dict[str, str]:
    if call is None:
        return {}
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
