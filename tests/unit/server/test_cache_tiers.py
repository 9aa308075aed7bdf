"""The tiers are as large as the environment says, or else the file; and a reload changes what the file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polyroute.core.config import Config
from polyroute.server.cache_tiers import resize, tiers_of
from polyroute.server.settings import Address, Settings

MIB = 1024 * 1024
ANYWHERE = Address("127.0.0.1", 0)


def config(tiers: dict[str, Any] | None = None) -> Config:
    cache = {} if tiers is None else {"tiers": tiers}
    return Config.model_validate({"models": [{"id": "m", "type": "local"}], "cache": cache})


@pytest.mark.parametrize(
    ("said", "before", "after"),
    [(None, (64 * MIB, 1024 * MIB), (2 * MIB, 5 * MIB)), (3 * MIB, (64 * MIB, 3 * MIB), (2 * MIB, 3 * MIB))],
    ids=["by the file", "by the environment"],
)
async def test_sizes(tmp_path: Path, said: int | None, before: tuple[int, int], after: tuple[int, int]) -> None:
    settings = Settings(config(), ANYWHERE, ANYWHERE, ANYWHERE, cache_dir=tmp_path, cache_bytes=said)
    answers = tiers_of(settings)

    async def sizes() -> tuple[int, ...]:
        return tuple(tier.max_bytes for tier in (await answers.stats()).tiers)

    assert await sizes() == before
    resize(answers, settings, config({"memory": {"size": "2MiB"}, "disk": {"size": "5MiB"}}))
    assert await sizes() == after
    resize(answers, settings, config())
    assert await sizes() == before
    await answers.close()
