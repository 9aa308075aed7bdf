"""Servers are killed in the middle of a rollout: nobody's variant changes, and nothing that was kept is lost.

`POLYROUTE_TEST_KILLS=50` kills so many times instead of a few.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from polyroute.backends.echo import EchoBackend
from polyroute.client.operations import Rollout
from tests.integration.grpc_serving import serving
from tests.integration.rollout_processes import Router, config_file, router

KILLS = int(os.environ.get("POLYROUTE_TEST_KILLS", "3"))
CALLERS = 6


def samples(rollout: Rollout) -> int:
    """Calls of the new version that count."""
    return rollout.evidence[0].samples_to if rollout.evidence else 0


async def calling(at: Router, caller: int, answered: list[str]) -> None:
    """Calls of one caller, one after the other, until the server is gone."""
    while not at.ended["failed"]:
        answered.append(await at.call(f"{caller}-{len(answered)}"))


@pytest.mark.timeout(60 + 20 * KILLS)
async def test_kill_9_at_any_moment_changes_nothing(tmp_path: Path) -> None:
    rng, where, known, new_calls = random.Random(5), None, 0, 0
    history = None
    async with serving(EchoBackend("one"), EchoBackend("two"), folder=tmp_path / "peers") as peers:
        config = config_file(tmp_path, f"http://{peers.server.http_address}")
        for _ in range(KILLS):
            async with router(tmp_path, config, f"sqlite:///{tmp_path / 'state.db'}") as at:
                begun = await at.begun()
                variants = await at.variants()
                where, history = where or variants, history or begun.history
                assert variants == where
                assert begun.weight == 0.3
                assert begun.history == history
                assert known <= samples(begun) <= new_calls
                answered: list[str] = []
                callers = [asyncio.create_task(calling(at, caller, answered)) for caller in range(CALLERS)]
                await asyncio.sleep(rng.uniform(0.1, 2.5))
                known = samples(await at.rollout())
                await at.kill()
                await asyncio.gather(*callers)
                new_calls += answered.count("new") + CALLERS
                assert 1 <= at.ended["failed"] <= CALLERS  # those in flight, one a caller
                assert at.ended["ok"] == len(answered) - at.ended["failed"] > 0
    assert known > 0
