"""Feedback by gRPC, REST and the client finds its request, whenever it comes, and counts once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import select

from polyroute.backends.echo import EchoBackend
from polyroute.client import Client
from polyroute.core.config import RouteConfig
from polyroute.routing.experiments.database import Database, default_url
from polyroute.routing.experiments.tables import sums
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import WAIT_S, Serving, refused, serving, settings_for

ROUTE = RouteConfig.model_validate(
    {"id": "chat", "variants": [{"name": "a", "model": "one"}, {"name": "b", "model": "two"}]}
)


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Serving]:
    echoes = (EchoBackend("one"), EchoBackend("two"))
    settings = replace(
        settings_for(*echoes, folder=tmp_path, routes=(ROUTE,)), state_url=default_url(tmp_path / "state")
    )
    async with serving(*echoes, folder=tmp_path, settings=settings) as running:
        yield running


async def ask(at: Serving, request_id: str) -> str:
    request = pb.GenerateRequest(model="chat", prompt="hi", request_id=request_id)
    return (await at.inference.Generate(request, timeout=WAIT_S)).route.variant


async def total(at: Serving, metric: str) -> list[tuple[str, int, float]]:
    database = Database(at.server.settings.state_url or "")
    query = select(sums.c.arm, sums.c.count, sums.c.total).where(sums.c.metric == f"feedback.{metric}")
    rows = await database.read(lambda connection: connection.execute(query).all())
    await database.close()
    return [(arm, count, value) for arm, count, value in rows]


def said(request_id: str, **fields: object) -> pb.RecordFeedbackRequest:
    values: dict[str, object] = {"metric": "resolved", "bool_value": True} | fields
    return pb.RecordFeedbackRequest(request_id=request_id, **values)  # type: ignore[arg-type]


async def test_feedback_by_every_way_counts_for_the_variant_that_answered(at: Serving) -> None:
    variant = await ask(at, "r1")
    answer = await at.inference.RecordFeedback(said("r1"), timeout=WAIT_S)
    assert answer.matched
    assert (await at.inference.RecordFeedback(said("r1"), timeout=WAIT_S)).matched
    assert await total(at, "resolved") == [(variant, 1, 1.0)]
    async with Client(str(at.server.grpc_address)) as client:
        assert await client.record_feedback("r1", "rating", 4, timeout=WAIT_S)
    body = {"request_id": "r1", "metric": "rating", "value": 2, "observed": datetime.now(UTC).isoformat()}
    url = f"http://{at.server.http_address}/v1/feedback"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as said_so:
        assert (said_so.status, await said_so.json()) == (200, {"matched": True})
    assert await total(at, "rating") == [(variant, 1, 2.0)]


async def test_a_value_of_another_kind_is_refused_in_plain_words(at: Serving) -> None:
    url, body = f"http://{at.server.http_address}/v1/feedback", {"request_id": "r", "metric": "m", "value": "good"}
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as refusal:
        error = (await refusal.json())["error"]
    assert (error["param"], error["message"]) == ("value", "value: must be true or false or a number, not `good`")


async def test_feedback_may_come_before_its_request(at: Serving) -> None:
    assert not (await at.inference.RecordFeedback(said("r2"), timeout=WAIT_S)).matched
    variant = await ask(at, "r2")
    assert (await at.inference.RecordFeedback(said("r2"), timeout=WAIT_S)).matched
    assert await total(at, "resolved") == [(variant, 1, 1.0)]


async def test_feedback_that_makes_no_sense_is_refused_by_field(at: Serving) -> None:
    later = Timestamp(seconds=int(datetime.now(UTC).timestamp()) + 3600)
    for request, field in (
        (said(""), "request_id"),
        (said("r", metric="two words"), "metric"),
        (said("r", metric="m" * 65), "metric"),
        (pb.RecordFeedbackRequest(request_id="r", metric="m"), "value"),
        (pb.RecordFeedbackRequest(request_id="r", metric="m", number_value=float("nan")), "value"),
        (said("r", observed=later), "observed"),
    ):
        error = await refused(at.inference.RecordFeedback(request, timeout=WAIT_S))
        assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    async with aiohttp.ClientSession() as session:
        url = f"http://{at.server.http_address}/v1/feedback"
        for wrong, param in (
            ({"request_id": "r", "metric": "m"}, "value"),
            ({"request_id": "r", "metric": "m", "value": "yes"}, "value"),
            ({"request_id": "r", "metric": "m", "value": 1, "observed": "2026-01-01T00:00:00"}, "observed"),
        ):
            async with session.post(url, json=wrong) as said_so:
                told = await said_so.json()
                assert (said_so.status, told["error"]["param"]) == (400, param), told


async def test_a_state_database_that_cannot_be_used_is_said_and_hurts_no_call(tmp_path: Path) -> None:
    echoes = (EchoBackend("one"), EchoBackend("two"))
    (tmp_path / "state").write_text("in the way")
    settings = replace(
        settings_for(*echoes, folder=tmp_path, routes=(ROUTE,)), state_url=default_url(tmp_path / "state")
    )
    async with serving(*echoes, folder=tmp_path, settings=settings) as at:
        assert await ask(at, "r1") in ("a", "b")
        error = await refused(at.inference.RecordFeedback(said("r1"), timeout=WAIT_S))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE")
        assert await ask(at, "r2") in ("a", "b")
