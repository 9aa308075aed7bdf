"""Two routers on one Postgres: equal variants for equal keys, one that decides, and another when that one is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from polyroute.backends.echo import EchoBackend
from polyroute.client.enums import RolloutState
from polyroute.core.backend import ModelState
from polyroute.core.config import RolloutConfig
from polyroute.routing.experiments.database import Database
from polyroute.routing.experiments.pairs import Pairs
from polyroute.routing.experiments.rollout import store
from polyroute.routing.experiments.rollout.evidence import Evidence, Tally
from polyroute.routing.experiments.rollout.looks import Case, adopt, look
from tests.integration.grpc_serving import WAIT_S, serving
from tests.integration.postgres import postgres
from tests.integration.rollout_processes import Router, config_file, router

STEPS = [{"weight": 0.3, "hold": "1ms", "min_samples": 20}, {"weight": 0.6, "hold": "1h"}]
EASY = {"errors": {"margin": "60%", "tolerance": "5%"}, "first_token": "off", "duration": "off"}
PLAN = RolloutConfig.model_validate(
    {
        "from": "old",
        "to": "new",
        "steps": [{"weight": w, "hold": "1ms", "min_samples": 1} for w in (0.1, 0.5)],
        "guardrails": EASY,
    }
)
GOOD = Evidence(Tally(500, 0), Tally(500, 0), Pairs(even=500))


@pytest.fixture(scope="module")
def state_url() -> Iterator[str]:
    with postgres() as url:
        yield url


async def agreed(one: Router, two: Router, *, weight: float) -> list[str]:
    """Where each user's calls go, once both routers split traffic so; they agree on it."""
    async with asyncio.timeout(WAIT_S):
        for each in (one, two):
            while abs(await each.share() - weight) > 1e-9:  # noqa: ASYNC110 - of a process
                await asyncio.sleep(0.05)
    first = await one.variants()
    assert await two.variants() == first
    return first


async def test_two_routers_share_a_rollout_and_one_takes_over(tmp_path: Path, state_url: str) -> None:
    (tmp_path / "b").mkdir()
    async with serving(EchoBackend("one"), EchoBackend("two"), folder=tmp_path / "peers") as peers:
        config = config_file(tmp_path, f"http://{peers.server.http_address}", steps=STEPS, guardrails=EASY)
        async with router(tmp_path, config, state_url) as one, router(tmp_path / "b", config, state_url) as two:
            begun = await one.begun()
            assert begun.controller == (await two.rollout()).controller != ""
            before = await agreed(one, two, weight=0.3)
            users = [f"{user}" for user in range(40)]
            assert [await one.call(user) for user in users] == [await two.call(user) for user in users]
            for n in range(60):  # what either sees counts
                await (one if n % 2 else two).call(f"more {n}")
            after = await agreed(one, two, weight=0.6)
            assert {(a, b) for a, b in zip(before, after, strict=True) if a != b} == {("old", "new")}
            history = (await one.rollout()).history
            assert (await two.rollout()).history == history
            assert [change.to_state for change in history] == [RolloutState.PENDING] + 2 * [RolloutState.RUNNING]

            await one.kill()  # it began the rollout, so it decides
            async with asyncio.timeout(WAIT_S):
                while (await two.rollout()).controller in ("", begun.controller):  # noqa: ASYNC110 - of a process
                    await asyncio.sleep(0.05)
            assert (await two.rollout()).weight == 0.6
            assert await two.call("someone") in ("old", "new")
            assert (await two.admin.roll_back_rollout("r")).state is RolloutState.ROLLED_BACK


async def test_a_lease_that_ends_is_taken_and_no_two_decide(state_url: str) -> None:
    """On Postgres itself: both routers look at once, again and again, and every change is made once."""
    case = Case("race", "one", PLAN, old=ModelState.WARM, new=ModelState.WARM)
    seen = replace(case, seen=GOOD, fresh=True)
    databases = [Database(state_url) for _ in range(2)]
    try:
        await asyncio.gather(*(each.write(partial(adopt, case=case, router="any")) for each in databases))
        await databases[1].write(partial(look, case=case, router="b", term_s=0.0))  # begins, before anything was seen
        for _ in range(10):
            looks = zip(databases, (seen, case), "ab", strict=True)
            await asyncio.gather(
                *(each.write(partial(look, case=mine, router=name, term_s=0.0)) for each, mine, name in looks)
            )
        kept = await databases[0].read(partial(store.history, route="race"))
    finally:
        for each in databases:
            await each.close()
    states = [(change.after.name, change.step) for change in kept]
    assert states == [("PENDING", 0), ("RUNNING", 0), ("RUNNING", 1)]
