"""Records, feedback, pairs and reports on a real Postgres, by two routers at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from polyroute.routing.experiments.database import Database
from polyroute.routing.experiments.findings import Arm
from polyroute.routing.experiments.journal import Journal
from polyroute.routing.experiments.records import CallRecord
from polyroute.routing.experiments.report import report
from polyroute.routing.experiments.shadow.pair import Pair
from polyroute.routing.experiments.store import Feedback
from polyroute.routing.experiments.tables import records
from polyroute.routing.experiments.tally import tally
from polyroute.routing.metrics import Metrics
from tests.integration.postgres import postgres

CALLS = 600
SHARES = (("a", 0.5), ("b", 0.5))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
async def journals(url: str) -> AsyncIterator[tuple[Journal, Journal]]:
    """Those of two routers, which open the database, and make its tables, at the same time."""
    both = tuple(Journal(Database(url), Metrics(CollectorRegistry()), 3600.0, now=lambda: 9000.0) for _ in range(2))
    yield both  # type: ignore[misc]
    await asyncio.gather(*(journal.close() for journal in both))


def record(number: int) -> CallRecord:
    """Keys of two calls each; every fourth call of `b` fails."""
    arm = "ab"[number // 2 % 2]
    fault = "PEER_FAILED" if arm == "b" and number % 4 == 3 else ""
    return CallRecord(
        at=7000.0 + number,
        request_id=f"r{number}",
        route="chat",
        variant=arm,
        model=arm,
        version="1",
        shares=SHARES,
        sticky_by="user",
        hash_point=(number // 2) / CALLS,
        probability=0.5,
        outcome=fault or "ok",
        fault=fault,
        total_s=1.0,
    )


async def test_two_routers_add_up_to_one_report(journals: tuple[Journal, Journal]) -> None:
    first, second = journals
    assert not await first.feedback(Feedback("r1", "rating", 2.0, False, 8000.0, 8000.0)), "before its record"
    for number in range(CALLS):
        journals[number % 2].recorded(record(number))
        journals[number % 2].paired(
            Pair(7000.0, f"p{number}", f"r{number}", "chat", "c", "1", "", "ok", "ok", number % 3 > 0, (number % 3) / 3)
        )
    await asyncio.gather(first.flush(), second.flush())
    assert await second.feedback(Feedback("r1", "rating", 5.0, False, 8001.0, 8001.0))
    assert await first.feedback(Feedback("r3", "rating", 1.0, False, 8001.0, 8001.0))
    found = await second.database.read(partial(tally, route="chat", since=0.0, points=20))
    shown = report("chat", [Arm("a", "a", 0.5), Arm("b", "b", 0.5)], "a", found)
    assert shown.split_ok
    assert [arm.answers for arm in shown.arms] == [CALLS // 2, CALLS // 2]
    assert shown.summary == "`b` fails more often than `a`, by 50 points."
    ratings = {arm.name: e.interval.estimate for arm in shown.arms for e in arm.estimates if "rating" in e.metric}
    assert ratings == {"a": 5.0, "b": 1.0}
    assert sum(entry.sum.count for entry in found.entries if entry.metric == "assigned") == CALLS // 2
    assert [series.points[-1].count for series in shown.series if series.metric == "error_rate"] == [CALLS // 2] * 2
    (shadow,) = shown.shadows
    assert (shadow.pairs, shadow.exact_matches) == (CALLS, CALLS * 2 // 3)
    assert [worst.edit_distance for worst in shadow.worst] == [pytest.approx(2 / 3)] * 20


async def test_a_record_that_postgres_cannot_hold_keeps_no_other_from_it(journals: tuple[Journal, Journal]) -> None:
    journal = journals[0]
    journal.recorded(replace(record(1), request_id="bad", version="\0"))
    journal.recorded(replace(record(1), request_id="good"))
    await journal.flush()
    named = select(records.c.request_id).where(records.c.request_id.in_(["bad", "good"]))
    assert await journal.database.read(lambda c: c.scalars(named).all()) == ["good"]


async def test_what_is_old_leaves(journals: tuple[Journal, Journal]) -> None:
    journal = journals[0]
    journal.recorded(record(0))
    await journal.flush()
    journal.retention_s = 1.0
    await journal.sweep()
    count = await journal.database.read(lambda c: c.scalar(select(func.count()).select_from(records)))
    assert count == 0
