"""The home keeps its fronts, whatever they say."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from polyroute.backends.echo import EchoBackend
from polyroute.server.fronts.home import Home
from tests.integration.grpc_serving import settings_for


async def test_a_front_that_is_not_understood_is_replaced_as_one_that_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(replace(settings_for(EchoBackend("m"), folder=tmp_path), workers=1), turns=2)
    lives, twice = 0, asyncio.Event()

    async def live(front: object) -> str:
        nonlocal lives
        lives += 1
        if lives == 1:
            raise KeyError("what it told")
        twice.set()
        return "exit code 1"

    monkeypatch.setattr(home, "_live", live)
    keeping = asyncio.create_task(home._keep(home._fronts[0]))
    async with asyncio.timeout(60):
        await twice.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await home.stop()
