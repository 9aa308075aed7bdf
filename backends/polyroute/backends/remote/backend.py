"""A model at one peer: the backend that sends calls over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import structlog
from yarl import URL

from polyroute.backends.remote import count
from polyroute.backends.remote.dialect import Dialect
from polyroute.backends.remote.exchange import NOTHING, Incoming
from polyroute.backends.remote.generate import GenerateDialect
from polyroute.backends.remote.lists import Lists
from polyroute.backends.remote.names import url_at
from polyroute.backends.remote.openai import OpenAIDialect
from polyroute.backends.remote.peer import Peer
from polyroute.backends.remote.turns import Turns
from polyroute.backends.remote.watch import Watch
from polyroute.core.attributes import HTTP_STATUS, SERVER_ADDRESS, SERVER_PORT
from polyroute.core.backend import BackendStatus, Facts, ModelState, ReplicaStatus, TokenCount
from polyroute.core.call import Call
from polyroute.core.config import ModelConfig, RemoteConfig
from polyroute.core.errors import PeerUnreachable, PolyrouteError, Unimplemented
from polyroute.core.event import Event, Route, Started
from polyroute.core.route_header import ROUTE_HEADER, route_from_header
from polyroute.core.trace import Span

UNVERSIONED: Final = "unversioned"
"""Version of a model whose peer does not tell one."""

_DIALECTS: dict[str, Dialect] = {"openai": OpenAIDialect(), "generate": GenerateDialect()}
_log = structlog.get_logger(__name__)


class RemoteBackend:
    """One replica: `config`'s model at the peer `base_url`. Implements `polyroute.core.backend.Backend`.

    With an `address`, connections go to that IP address of the URL's host, which is asked for by its name all the
    same; the replica is then named after the address.
    A peer that could not be reached is still tried when a call comes, and is well again once it answers one. The
    backends that share `turns` ask their peers how they are by them; of those that share `lists` and are of one peer,
    one asks for all.
    """

    def __init__(
        self,
        config: RemoteConfig,
        base_url: str,
        address: str | None = None,
        *,
        turns: Turns | None = None,
        lists: Lists | None = None,
    ) -> None:
        self._config = config
        self._name = base_url if address is None else url_at(base_url, address)
        self._peer_model = config.peer_model or config.id
        self._peer = Peer(config, base_url, address)
        told = config.api != "auto"
        self._watch = Watch(
            self._peer, self._peer_model, config.probe_interval, dialect_told=told, turns=turns, lists=lists
        )
        self._in_flight = 0
        self._usual = Started(Route(model=config.id, version=config.version or "", replica=self._name))
        """Of an answer that tells of no route of its own."""
        self._told = Facts(self._watch.state)

    def __repr__(self) -> str:
        return f"<RemoteBackend {self._peer.where} {self._watch.state.name} in_flight={self._in_flight}>"

    async def start(self) -> None:
        """Begins to ask the peer what it is, in the background."""
        self._watch.start()

    async def load(self) -> None:
        """Returns once the peer has answered; raises `PeerUnreachable`, or what leaves its dialect unknown."""
        try:
            await self._watch.ask()
        except PolyrouteError:
            if self._watch.state is not ModelState.WARM:
                raise

    async def stop(self) -> None:
        """Closes the connections; calls in flight fail with `Draining`."""
        await self._watch.stop()
        await self._peer.close()

    def adopt(self, config: ModelConfig) -> None:
        """Takes on the version, the timeouts, and how often the peer is asked how it is."""
        if isinstance(config, RemoteConfig):
            self._config = config
            self._peer.adopt(config)
            self._watch.interval_s = config.probe_interval

    def stream(self, call: Call) -> AsyncIterator[Event]:
        """Sends the call to the peer and passes its answer on as it comes.

        Closing the stream closes the connection, which tells the peer to stop. Raises `PeerUnreachable` before an
        answer has begun; `PeerFailed` for a bad one; `InvalidArgument`, `Overloaded` or `Unavailable` where the peer
        says so; `Unsupported` for a field that its dialect has not; `DeadlineExceeded`.
        """
        return self._stream(call)

    async def _stream(self, call: Call) -> AsyncGenerator[Event, None]:
        self._in_flight += 1
        try:
            dialect = await self._dialect(call)
            outgoing = dialect.outgoing(call.request, self._peer_model)
            try:
                response = await self._peer.send("POST", outgoing.path, call=call, body=outgoing.body)
            except PeerUnreachable as error:
                self._watch.lost(error)
                raise
            try:
                if call.trace.span is not None:
                    _describe(call.trace.span, self._peer.url, response.status)
                if response.status < 500 and self._watch.state is not ModelState.WARM:
                    self._watch.reached()
                if not 200 <= response.status < 300:
                    raise await self._peer.refusal(response)
                answer = Incoming(self._peer, response, dialect.reader(call.request))
                tokens = await answer.tokens()
                finished = None if tokens else await answer.finished()
                yield self._started(response.headers.get(ROUTE_HEADER))
                while tokens:
                    for token in tokens:
                        if token is not NOTHING:
                            yield token
                    tokens = await answer.tokens()
                yield finished or await answer.finished()
            finally:
                response.close()
        finally:
            self._in_flight -= 1

    async def _dialect(self, call: Call) -> Dialect:
        if self._config.api != "auto":
            return _DIALECTS[self._config.api]
        facts = self._watch.facts
        if facts is None:
            facts = await self._peer.within(call, self._watch.ask())
        return _DIALECTS[facts.api]

    def _started(self, header: str | None) -> Started:
        upstream = None
        if header is not None:
            upstream = route_from_header(header)
            if upstream is None:
                _log.debug("route_header.ignored", peer=self._peer.where, length=len(header))
        if upstream is not None:
            version = self._config.version or self._told_version(upstream)
            return Started(Route(model=self._config.id, version=version, replica=self._name, upstream=upstream))
        if self._usual.route.version != self._version:
            self._usual = Started(Route(model=self._config.id, version=self._version, replica=self._name))
        return self._usual

    def _told_version(self, upstream: Route) -> str:
        """The version that answered, as a Polyroute tells it with the answer; another than is known is asked about.

        Where another model has answered than was asked for, as a route's variant or a fallback, it is that one's.
        """
        if upstream.model != self._peer_model:
            return f"{upstream.model}@{upstream.version}" if upstream.version else ""
        facts = self._watch.facts
        if facts is not None and upstream.version and facts.version != upstream.version:
            self._watch.doubt()
        return upstream.version

    @property
    def _version(self) -> str:
        """What the configuration says, or else the peer said when it was asked last."""
        if told := self._config.version:
            return told
        facts = self._watch.facts
        if facts is None:
            return ""
        return UNVERSIONED if facts.version is None else facts.version

    @property
    def _chat(self) -> bool:
        """Whether the peer takes conversations; yes until it is known."""
        facts = self._watch.facts
        if self._config.api == "auto":
            return facts is None or _DIALECTS[facts.api].chat
        return _DIALECTS[self._config.api].chat

    async def count_tokens(self, call: Call) -> TokenCount:
        """Asks the peer, where it has vLLM's `POST /tokenize`; raises `Unimplemented` where it has not."""
        if (await self._dialect(call)).chat:
            return await count.count_tokens(self._peer, call, self._peer_model)
        raise Unimplemented(f"{self._peer.where}: does not count tokens")

    def facts(self) -> Facts:
        """As the last call or the last question left it."""
        told, watch, version = self._told, self._watch, self._version
        if told.state is watch.state and told.version == version and told.ready_since == watch.ready_since:
            return told
        self._told = Facts(watch.state, version, ready_since=watch.ready_since)
        return self._told

    def status(self) -> BackendStatus:
        """As the last call or the last question left it."""
        watch, facts = self._watch, self._watch.facts
        return BackendStatus(
            watch.state,
            watch.detail,
            self._version,
            0 if facts is None else facts.context_length,
            chat=self._chat,
            ready_since=watch.ready_since,
            replicas=(ReplicaStatus(self._name, watch.state, watch.detail, self._in_flight, self._version),),
        )


def _describe(span: Span, url: URL, status: int) -> None:
    span.attributes |= {SERVER_ADDRESS: url.host or "", HTTP_STATUS: status}
    if url.port is not None:
        span.attributes[SERVER_PORT] = url.port
