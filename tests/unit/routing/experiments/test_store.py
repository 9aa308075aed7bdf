"""Records are kept and summed up, keys are counted once, and feedback finds its record whichever comes first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Connection, func, select

from polyroute.core.errors import InvalidArgument
from polyroute.routing.experiments.database import Database
from polyroute.routing.experiments.records import CallRecord
from polyroute.routing.experiments.store import (
    MOST_METRICS,
    Feedback,
    add_feedback,
    add_records,
    forget,
    recorded_routes,
)
from polyroute.routing.experiments.tables import feedback, hourly_sums, records, sums, units

Make = Callable[..., CallRecord]


def _sums(connection: Connection) -> dict[tuple[str, str], tuple[int, float, float]]:
    rows = connection.execute(select(sums.c.arm, sums.c.metric, sums.c.count, sums.c.total, sums.c.squares))
    return {(arm, metric): (count, total, squares) for arm, metric, count, total, squares in rows}


def _count(table: object) -> Callable[[Connection], int]:
    return lambda connection: connection.scalar(select(func.count()).select_from(table)) or 0  # type: ignore[call-overload]


def said(request_id: str, value: float = 1.0, at: float = 7000.0, metric: str = "helpful") -> Feedback:
    return Feedback(request_id, metric, value, True, at, at)


async def test_records_are_kept_as_they_are_and_summed_up(database: Database, record: Make) -> None:
    batch = [
        record("r1"),
        record("r2", total_s=4.0, hash_point=0.3),
        record("r3", outcome="PEER_FAILED", fault="PEER_FAILED"),
        record("r4", fault="WORKER_DIED"),
    ]
    await database.write(partial(add_records, batch=batch))
    found = await database.read(_sums)
    assert found == {
        ("a", "assigned"): (2, 2.0, 2.0),  # r1, r3 and r4 are of one key
        ("a", "error_rate"): (4, 2.0, 2.0),
        ("a", "first_token_s"): (2, 1.0, 0.5),
        ("a", "total_s"): (2, 6.0, 20.0),
        ("a", "completion_tokens"): (2, 20.0, 200.0),
    }
    kept = await database.read(lambda c: c.execute(select(records).order_by(records.c.id)).mappings().all())
    assert [row["request_id"] for row in kept] == ["r1", "r2", "r3", "r4"]
    assert (kept[0]["variant"], kept[0]["probability"], kept[0]["sticky_by"]) == ("a", 0.5, "user")


async def test_a_key_counts_once_in_a_split_whatever_the_batch(database: Database, record: Make) -> None:
    await database.write(partial(add_records, batch=[record("r1"), record("r2")]))
    await database.write(partial(add_records, batch=[record("r3")]))
    assert (await database.read(_sums))["a", "assigned"][0] == 1
    other = (("a", 0.9), ("b", 0.1))
    await database.write(partial(add_records, batch=[record("r4", shares=other)]))
    assert await database.read(_count(units)) == 2


async def test_calls_that_fall_anew_count_each(database: Database, record: Make) -> None:
    batch = [record(f"r{i}", sticky_by="request", hash_point=i / 10) for i in range(3)]
    await database.write(partial(add_records, batch=batch))
    assert (await database.read(_sums))["a", "assigned"][0] == 3
    assert await database.read(_count(units)) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"cache": "HIT"},
        {"cache": "COALESCED"},
        {"outcome": "CANCELLED", "fault": "CANCELLED"},
        {"outcome": "INVALID_ARGUMENT", "fault": "INVALID_ARGUMENT"},
        {"outcome": "DEADLINE_EXCEEDED", "fault": "DEADLINE_EXCEEDED", "own_deadline": True},
        {"fault": "MODEL_LOADING"},
    ],
)
async def test_what_is_no_evidence_counts_as_assigned_alone(
    database: Database, record: Make, changes: dict[str, object]
) -> None:
    await database.write(partial(add_records, batch=[record(**changes)]))
    assert set(await database.read(_sums)) == {("a", "assigned")}


async def test_a_timeout_of_the_model_is_evidence(database: Database, record: Make) -> None:
    late = record(outcome="DEADLINE_EXCEEDED", fault="DEADLINE_EXCEEDED")
    await database.write(partial(add_records, batch=[late]))
    assert (await database.read(_sums))["a", "error_rate"] == (1, 1.0, 1.0)


async def test_pinned_calls_count_for_none_and_held_out_ones_apart(database: Database, record: Make) -> None:
    drawn = {"hash_point": None, "probability": None}
    await database.write(partial(add_records, batch=[record("r1", **drawn), record("r2", held_out="holdout", **drawn)]))
    found = await database.read(_sums)
    assert {arm for arm, _ in found} == {"(holdout)"}
    assert ("(holdout)", "assigned") not in found
    assert await database.read(_count(records)) == 2


async def test_feedback_on_a_pinned_call_counts_apart_before_its_record_and_after(
    database: Database, record: Make
) -> None:
    pinned = {"hash_point": None, "probability": None, "sticky_by": ""}
    assert not await database.write(partial(add_feedback, given=said("r1", 1.0)))
    await database.write(partial(add_records, batch=[record("r1", **pinned), record("r2", **pinned, variant="")]))
    assert await database.write(partial(add_feedback, given=said("r1", 0.5, at=8000.0)))
    assert await database.write(partial(add_feedback, given=said("r2", 1.0))), "known, and of no variant"
    assert await database.read(_sums) == {("(pinned) a", "feedback.helpful"): (1, 0.5, 0.25)}


async def test_feedback_after_its_record_counts_once_and_may_be_corrected(database: Database, record: Make) -> None:
    await database.write(partial(add_records, batch=[record("r1")]))
    assert await database.write(partial(add_feedback, given=said("r1", 4.0)))
    assert await database.write(partial(add_feedback, given=said("r1", 4.0)))
    assert (await database.read(_sums))["a", "feedback.helpful"] == (1, 4.0, 16.0)
    assert await database.write(partial(add_feedback, given=said("r1", 1.0, at=8000.0)))
    assert (await database.read(_sums))["a", "feedback.helpful"] == (1, 1.0, 1.0)
    assert await database.write(partial(add_feedback, given=said("r1", 5.0, at=7500.0))), "observed before, sent after"
    assert (await database.read(_sums))["a", "feedback.helpful"] == (1, 1.0, 1.0)


async def test_feedback_before_its_record_is_joined_when_that_comes(database: Database, record: Make) -> None:
    assert not await database.write(partial(add_feedback, given=said("r1", 1.0)))
    assert not await database.write(partial(add_feedback, given=said("r1", 0.0, at=7001.0)))
    await database.write(partial(add_records, batch=[record("r0", hash_point=0.1), record("r1")]))
    assert (await database.read(_sums))["a", "feedback.helpful"] == (1, 0.0, 0.0)
    assert await database.write(partial(add_feedback, given=said("r1", 1.0, at=7002.0)))
    assert (await database.read(_sums))["a", "feedback.helpful"] == (1, 1.0, 1.0)


async def test_what_is_old_is_forgotten_and_sums_later(database: Database, record: Make) -> None:
    batch = [record("old", at=100.0), record("new", at=9000.0, hash_point=0.75)]
    await database.write(partial(add_records, batch=batch))
    await database.write(partial(add_feedback, given=said("old", at=200.0)))
    routes = await database.read(recorded_routes)
    assert not await database.write(partial(forget, routes=routes, before=5000.0, sums_before=0.0))
    kept = await database.read(lambda c: c.scalars(select(records.c.request_id)).all())
    assert kept == ["new"]
    assert await database.read(_count(feedback)) == 0
    assert await database.read(_count(sums)) == 5, "by the minute as long as records"
    assert await database.read(_count(hourly_sums)) == 11
    await database.write(partial(forget, routes=routes, before=5000.0, sums_before=5000.0))
    assert await database.read(_count(hourly_sums)) == 5


async def test_one_request_has_feedback_on_so_many_metrics(database: Database) -> None:
    for number in range(MOST_METRICS):
        await database.write(partial(add_feedback, given=said("r1", metric=f"m{number}")))
    with pytest.raises(InvalidArgument, match="metric: the request has feedback on 32 metrics already, the limit"):
        await database.write(partial(add_feedback, given=said("r1", metric="another")))
    await database.write(partial(add_feedback, given=said("r1", metric="m0", value=0.0, at=8000.0)))
    assert await database.read(_count(feedback)) == MOST_METRICS
