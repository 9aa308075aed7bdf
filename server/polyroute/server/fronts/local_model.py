"""Local models and embedders as a front has them: the home runs them, once for all fronts."""

from __future__ import annotations

from collections.abc import AsyncIterator

from polyroute.core.backend import BackendStatus, Facts, Preview, TokenCount
from polyroute.core.call import Call
from polyroute.core.config import LocalConfig, ModelConfig
from polyroute.core.errors import Unimplemented
from polyroute.core.event import Event
from polyroute.routing.registry import fingerprint
from polyroute.server.fronts.home_link import HomeLink


class LocalModel:
    """A `polyroute.core.backend.Backend` over the model of that configuration in the home."""

    def __init__(self, config: LocalConfig, home: HomeLink) -> None:
        self._id = config.id
        self._fingerprint = fingerprint(config)
        self._home = home

    def __repr__(self) -> str:
        return f"<LocalModel {self._id} {self.facts().state.name}>"

    async def start(self) -> None:
        """Nothing to begin: the home loads models."""

    async def load(self) -> None:
        """Raises `Unimplemented`: the operator's calls are the home's."""
        raise Unimplemented(f"`{self._id}`: a front process loads no models")

    async def stop(self) -> None:
        """Nothing to end: closing a stream ends its work."""

    def adopt(self, config: ModelConfig) -> None:
        """Takes on what calls tell the home of it; all else the home has."""
        self._fingerprint = fingerprint(config)

    def stream(self, call: Call) -> AsyncIterator[Event]:
        """Answers a call; closing the stream takes the sequence out of the worker."""
        return self._home.run(self._id, self._fingerprint, call)

    async def count_tokens(self, call: Call) -> TokenCount:
        """Counts with the model's own tokenizer and chat template."""
        return await self._home.count_tokens(self._id, call)

    def preview(self, call: Call) -> Preview:
        """The only replica; of several the home chooses when the call comes."""
        replicas = self.status().replicas
        if len(replicas) == 1:
            return Preview(replicas[0].name, "")
        return Preview("", f"one of {len(replicas)} replicas" if replicas else "no replica is loaded")

    def facts(self) -> Facts:
        """As in `status`."""
        status = self.status()
        return Facts(status.state, status.version, status.greedy_default, status.max_sequences, status.ready_since)

    def status(self) -> BackendStatus:
        """How it stood a quarter of a second ago at most."""
        return self._home.status(self._id)


class HomeEmbedder:
    """A `polyroute.core.embedder.Embedder` over the one in the home."""

    def __init__(self, source: str, home: HomeLink) -> None:
        self._source = source
        self._home = home

    async def embed(self, text: str) -> bytes:
        """See `Embedder.embed`."""
        return await self._home.embed(self._source, text)

    async def stop(self) -> None:
        """Nothing to end: the home stops embedders that no model names."""
