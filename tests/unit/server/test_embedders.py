"""One embedder of each source, for as long as some model names it."""

from __future__ import annotations

from typing import Any

from polyroute.core.config import Config
from polyroute.server.embedders import Embedders


class Named:
    """An embedder that knows whether it was stopped."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.stopped = False

    async def embed(self, text: str) -> bytes:
        raise NotImplementedError

    async def stop(self) -> None:
        self.stopped = True


def config(*semantics: dict[str, Any]) -> Config:
    url = {"type": "remote", "base_url": "http://127.0.0.1:9"}
    models = [{"id": f"m{i}", "cache": {"semantic": semantic}, **url} for i, semantic in enumerate(semantics)]
    return Config.model_validate({"models": models})


async def test_models_share_an_embedder_and_one_that_nobody_names_ends() -> None:
    made: list[Named] = []

    def make(source: str) -> Named:
        made.append(Named(source))
        return made[-1]

    embedders = Embedders(make)
    first = config({"mode": "measure"}, {"mode": "serve"}, {"mode": "off"}, {"mode": "serve", "embedder": "/e"})
    given = [embedders.of(model) for model in first.effective_models]
    assert [one.source if isinstance(one, Named) else None for one in given] == ["minilm", "minilm", None, "/e"]
    assert len(made) == 2
    embedders.keep(config({"mode": "measure"}))
    await embedders.close()
    assert [one.stopped for one in made] == [True, True]
    again = embedders.of(first.effective_models[0])
    assert again is not made[0]
