"""The embedding models that semantic caches use: one of each, shared by the models that name it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from polyroute.core.config import Config, ModelConfig
from polyroute.core.embedder import Embedder, NoEmbedding


class Embedders:
    """Embedders by their source, each made where the first model names it; `make` makes one."""

    def __init__(self, make: Callable[[str], Embedder]) -> None:
        self._make = make
        self._made: dict[str, Embedder] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def of(self, model: ModelConfig) -> Embedder | None:
        """The one for an effective configuration; None where its semantic cache is off."""
        source = _source(model)
        if source and source not in self._made:
            self._made[source] = self._make(source)
        return self._made.get(source)

    async def embed(self, source: str, text: str) -> bytes:
        """As `Embedder.embed`, by the one of that source."""
        embedder = self._made.get(source)
        if embedder is None:
            raise NoEmbedding(f"`{source}` is used by no model")
        return await embedder.embed(text)

    def keep(self, config: Config) -> None:
        """Stops those that no model of a configuration names; a call that still has one goes on without."""
        used = set(map(_source, config.effective_models))
        for source in self._made.keys() - used:
            leaving = asyncio.create_task(self._made.pop(source).stop(), name=f"end of embedder {source}")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Stops all of them."""
        made = [self._made.pop(source) for source in list(self._made)]
        await asyncio.gather(*(embedder.stop() for embedder in made), *self._leaving)


def _source(model: ModelConfig) -> str:
    semantic = None if model.cache is None else model.cache.semantic
    return "" if semantic is None or semantic.mode == "off" else semantic.embedder
