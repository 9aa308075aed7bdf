"""Shares follow what is learnt: kept in the database, reckoned by one router at a time, and in force in all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from polyroute.backends.echo import EchoBackend
from polyroute.core.errors import StateUnavailable
from polyroute.routing.experiments.adaptive.allocations import Allocations
from polyroute.routing.experiments.database import Database, default_url
from polyroute.routing.experiments.rollout.store import now
from polyroute.routing.experiments.tables import sums
from polyroute.routing.gateway import Gateway
from polyroute.routing.registry import Snapshot

ADAPTIVE = {"floor": 0.1, "every": "1ms"}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(default_url(tmp_path))
    yield opened
    await opened.close()


@pytest.fixture
def snapshot(build: Callable[..., Gateway]) -> Snapshot:
    echoes = {id: EchoBackend(id) for id in ("one", "two")}
    variants = [{"name": "a", "model": "one", "weight": 3}, {"name": "b", "model": "two"}]
    models = [{"id": id, "type": "remote", "base_url": "http://h:1"} for id in echoes]
    routes = [{"id": "r", "variants": variants, "adaptive": ADAPTIVE}]
    return build({"models": models, "routes": routes}, echoes).snapshot


class Steered:
    """A gateway whose shares move."""

    def __init__(self, snapshot: Snapshot, allocations: Allocations) -> None:
        self._allocations = allocations
        self.snapshot = allocations.steered(snapshot)

    def steer(self) -> None:
        self.snapshot = self._allocations.steered(self.snapshot)

    @property
    def shares(self) -> list[float]:
        rule = self.snapshot.rules["r"]
        return [rule.share(variant) for variant in rule.variants]


async def observed(database: Database, arm: str, bad: int, of: int, **fields: Any) -> None:
    """What records add: so many errors of so many calls, just now."""

    def work(connection: Connection) -> None:
        row = {"route": "r", "minute": int(now(connection) // 60), "split": "s", "arm": arm, "version": "1"}
        row |= {
            "model": {"a": "one", "b": "two"}[arm],
            "metric": "error_rate",
            "count": of,
            "total": bad,
            "squares": bad,
        }
        connection.execute(insert(sums).values(row | fields))

    await database.write(work)


async def begun(database: Database, snapshot: Snapshot) -> tuple[Allocations, Steered]:
    allocations = Allocations(database)
    await allocations.prepare(snapshot)
    return allocations, Steered(snapshot, allocations)


async def looked(allocations: Allocations, at: Steered, done: Callable[[list[float]], bool]) -> list[float]:
    async with asyncio.timeout(60):
        while not done(at.shares):
            await allocations.look(at)
            await asyncio.sleep(0.002)
    return at.shares


async def test_it_begins_with_the_weights_of_the_file_and_learns(database: Database, snapshot: Snapshot) -> None:
    allocations, at = await begun(database, snapshot)
    assert at.shares == [0.75, 0.25]
    assert await looked(allocations, at, lambda shares: shares[0] < 0.6) == pytest.approx([0.5, 0.5])
    await observed(database, "a", bad=30, of=100)
    await observed(database, "b", bad=5, of=100)
    assert await looked(allocations, at, lambda shares: shares[1] > 0.6) == pytest.approx([0.1, 0.9], abs=1e-3)


async def test_what_hardly_changes_anything_moves_nobody(database: Database, snapshot: Snapshot) -> None:
    allocations, at = await begun(database, snapshot)
    await observed(database, "a", bad=300, of=3_000)
    await observed(database, "b", bad=300, of=3_000)
    before = await looked(allocations, at, lambda shares: shares[0] < 0.6)
    await observed(database, "b", bad=0, of=1, version="2")
    for _ in range(3):
        await asyncio.sleep(0.002)  # longer than the shares hold
        await allocations.look(at)
    assert at.shares == before
    await observed(database, "b", bad=0, of=3_000, version="3")
    assert await looked(allocations, at, lambda shares: shares[1] > 0.8)


async def test_other_routers_and_the_next_start_follow(database: Database, snapshot: Snapshot) -> None:
    allocations, at = await begun(database, snapshot)
    await observed(database, "b", bad=100, of=100)
    await looked(allocations, at, lambda shares: shares[0] > 0.8)
    _, after = await begun(database, snapshot)
    assert after.shares == pytest.approx(at.shares)


async def test_what_is_old_of_another_model_or_another_metric_teaches_nothing(
    database: Database, snapshot: Snapshot
) -> None:
    allocations, at = await begun(database, snapshot)
    await observed(database, "a", bad=100, of=100, minute=1)
    await observed(database, "a", bad=100, of=100, model="before")
    await observed(database, "a", bad=100, of=100, metric="feedback.x")
    assert await looked(allocations, at, lambda shares: shares[0] < 0.6) == pytest.approx([0.5, 0.5])


async def test_what_callers_say_counts_where_it_is_the_metric(database: Database, snapshot: Snapshot) -> None:
    rule = snapshot.rules["r"]
    assert rule.adaptive is not None
    heard = replace(rule, adaptive=rule.adaptive.model_copy(update={"metric": "feedback.helpful"}))
    allocations, at = await begun(database, replace(snapshot, rules={"r": heard}))
    await observed(database, "a", bad=90, of=100, metric="feedback.helpful")  # so many said yes
    await observed(database, "b", bad=10, of=100, metric="feedback.helpful")
    assert await looked(allocations, at, lambda shares: shares[0] > 0.8) == pytest.approx([0.9, 0.1], abs=1e-3)


async def test_while_the_database_is_away_shares_stay(database: Database, snapshot: Snapshot, tmp_path: Path) -> None:
    allocations, at = await begun(database, snapshot)
    allocations._database = Database(f"sqlite:///{tmp_path}")  # a folder
    with pytest.raises(StateUnavailable):
        await allocations.look(at)
    await allocations._database.close()
    assert at.shares == [0.75, 0.25]


async def test_routes_that_have_changed_are_not_given_shares_of_others(database: Database, snapshot: Snapshot) -> None:
    allocations, _ = await begun(database, snapshot)
    rule = snapshot.rules["r"]
    renamed = replace(rule, variants=(rule.variants[0], replace(rule.variants[1], name="c")))
    changed = replace(snapshot, rules={"r": renamed})
    assert allocations.steered(changed) is changed


async def test_looks_at_once_reckon_once(database: Database, snapshot: Snapshot, tmp_path: Path) -> None:
    one, at = await begun(database, snapshot)
    other = Database(default_url(tmp_path))
    two = Allocations(other)
    await two.prepare(snapshot)
    await observed(database, "a", bad=50, of=100)
    await observed(database, "b", bad=5, of=100)
    beside = Steered(snapshot, two)
    await asyncio.gather(*(each.look(steered) for each, steered in ((one, at), (two, beside)) for _ in range(5)))
    await looked(one, at, lambda shares: shares[1] > 0.8)
    await looked(two, beside, lambda shares: shares[1] > 0.8)
    await other.close()
    assert at.shares == pytest.approx(beside.shares, abs=1e-6)


async def test_it_looks_by_itself_until_it_is_closed(database: Database, snapshot: Snapshot) -> None:
    allocations = Allocations(database, look_s=0.001)
    await allocations.prepare(snapshot)
    at = Steered(snapshot, allocations)
    allocations.start(at)
    async with asyncio.timeout(60):
        while at.shares[0] == 0.75:  # noqa: ASYNC110 - of a task
            await asyncio.sleep(0.01)
    await allocations.close()
    await database.write(partial(_nothing))


def _nothing(_connection: Connection) -> None:
    """The database is still usable."""
