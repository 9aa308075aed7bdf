"""Records are written behind the calls; what finds no room is dropped and counted, and nothing waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, func, select

from polyroute.core.errors import StateUnavailable
from polyroute.routing.experiments import journal as module
from polyroute.routing.experiments.database import Database, default_url
from polyroute.routing.experiments.journal import BATCH, Journal
from polyroute.routing.experiments.records import CallRecord
from polyroute.routing.experiments.store import Feedback
from polyroute.routing.experiments.tables import records
from polyroute.routing.metrics import Metrics

Make = Callable[..., CallRecord]


@pytest.fixture
async def journal(database: Database, metrics: Metrics) -> AsyncIterator[Journal]:
    journal = Journal(database, metrics, 3600.0, now=lambda: 9000.0)
    yield journal
    await journal.close()


def written(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(records)) or 0


def counted(registry: CollectorRegistry, result: str) -> float:
    return registry.get_sample_value("polyroute_experiment_records_total", {"result": result}) or 0.0


async def test_records_are_written_by_themselves(
    journal: Journal, record: Make, until: Callable[..., Any], registry: CollectorRegistry
) -> None:
    for i in range(2 * BATCH + 1):
        journal.recorded(record(f"r{i}", at=8000.0))
    assert registry.get_sample_value("polyroute_experiment_records_waiting") == 2 * BATCH + 1
    await until(lambda: counted(registry, "written") == 2 * BATCH + 1)
    assert await journal.database.read(written) == 2 * BATCH + 1


async def test_what_finds_no_room_is_dropped_and_counted(
    journal: Journal, record: Make, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    for i in range(5):
        journal.recorded(record(f"r{i}", at=8000.0))
    assert counted(registry, "dropped") == 2
    await journal.flush()
    assert await journal.database.read(written) == 3


async def test_records_wait_for_a_database_that_cannot_be_used(
    tmp_path: Path, metrics: Metrics, record: Make, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    (tmp_path / "state").write_text("in the way")
    journal = Journal(Database(default_url(tmp_path / "state")), metrics, 3600.0, now=lambda: 9000.0)
    journal.recorded(record(at=8000.0))
    with pytest.raises(StateUnavailable):
        await journal.flush()
    (tmp_path / "state").unlink()
    await until(lambda: "0 waiting" in repr(journal))
    assert await journal.database.read(written) == 1
    await journal.close()


@pytest.mark.parametrize("bad", [{"completion_tokens": 2**70}, {"version": "\ud800"}, {"total_s": float("nan")}])
async def test_a_record_that_the_database_cannot_hold_keeps_no_other_from_it(
    journal: Journal, record: Make, until: Callable[..., Any], registry: CollectorRegistry, bad: dict[str, Any]
) -> None:
    journal.recorded(record("bad", at=8000.0, **bad))
    journal.recorded(record("r1", at=8000.0))
    await until(lambda: counted(registry, "written") == 1)
    assert counted(registry, "dropped") == 1
    assert await journal.database.read(lambda c: c.scalars(select(records.c.request_id)).all()) == ["r1"]


async def test_who_leaves_while_records_are_written_has_none_written_twice(journal: Journal, record: Make) -> None:
    await journal.database.write(lambda c: None)
    for i in range(BATCH):
        journal.recorded(record(f"r{i}", at=8000.0))
    leaving = asyncio.create_task(journal.flush())
    for _ in range(3):
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await journal.flush()
    assert await journal.database.read(written) == BATCH


async def test_closing_writes_what_waits(
    database: Database, metrics: Metrics, record: Make, registry: CollectorRegistry
) -> None:
    journal = Journal(database, metrics, 3600.0)
    journal.recorded(record())
    await journal.close()
    again = Database(database.url)
    assert await again.read(written) == 1
    await again.close()


async def test_closing_over_a_database_that_cannot_be_used_counts_what_is_lost(
    tmp_path: Path, metrics: Metrics, record: Make, registry: CollectorRegistry
) -> None:
    (tmp_path / "state").write_text("in the way")
    journal = Journal(Database(default_url(tmp_path / "state")), metrics, 3600.0)
    journal.recorded(record())
    await journal.close()
    assert counted(registry, "dropped") == 1


async def test_feedback_sees_records_that_still_waited(journal: Journal, record: Make) -> None:
    journal.recorded(record("r1", at=8000.0))
    assert await journal.feedback(Feedback("r1", "helpful", 1.0, True, 8100.0, 8100.0))
    assert not await journal.feedback(Feedback("r2", "helpful", 1.0, True, 8100.0, 8100.0))


async def test_a_sweep_removes_what_is_older_than_the_retention(journal: Journal, record: Make) -> None:
    journal.recorded(record("old", at=100.0))
    journal.recorded(record("new", at=8000.0))
    await journal.flush()
    await journal.sweep()
    assert await journal.database.read(lambda c: c.scalars(select(records.c.request_id)).all()) == ["new"]


async def test_a_sweep_finds_records_of_which_nothing_is_summed_up(journal: Journal, record: Make) -> None:
    for route in ("chat", "fast"):
        journal.recorded(record("pinned", route=route, at=100.0, hash_point=None, probability=None))
    await journal.flush()
    await journal.sweep()
    assert await journal.database.read(written) == 0


async def test_a_call_that_is_recorded_awaits_nothing(journal: Journal, record: Make) -> None:
    """`recorded` is a plain function: what it does besides is one append, whatever the database does."""
    assert not asyncio.iscoroutinefunction(journal.recorded)
    journal.recorded(record())
    assert not journal.database.opened


class Heard:
    """Notes what it is told of ratings."""

    def __init__(self) -> None:
        self.ratings: list[tuple[str, str, float]] = []

    def rated(self, record: CallRecord, metric: str, rating: float) -> None:
        self.ratings.append((record.request_id, metric, rating))


async def test_a_rater_is_told_once_whichever_comes_first(database: Database, metrics: Metrics, record: Make) -> None:
    heard = Heard()
    journal = Journal(database, metrics, 3600.0, rater=heard, now=lambda: 9000.0)

    def said(request_id: str, value: float) -> Feedback:
        return Feedback(request_id, "stars", value, False, 8000.0, 8000.0)

    assert not await journal.feedback(said("r2", 2.0))
    assert heard.ratings == []
    journal.recorded(record("r1", at=8000.0))
    journal.recorded(record("r2", at=8000.0))
    await journal.flush()
    for value in (1.0, 1.0, 3.0):  # once more, and corrected
        assert await journal.feedback(said("r1", value))
        assert await journal.feedback(said("r2", value))
    assert heard.ratings == [("r2", "stars", 2.0), ("r1", "stars", 1.0)]
    await journal.close()
