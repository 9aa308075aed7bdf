"""The report of a running server's experiment, in the terminal, as JSON, as CSV and as a picture."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.config import RouteConfig
from polyroute.core.errors import PeerFailed
from polyroute.routing.experiments.database import default_url
from polyroute.v1 import admin_pb2, inference_pb2
from tests.integration.grpc_serving import WAIT_S, Serving, refused, serving, settings_for
from tests.integration.test_client_cli import Ended, polyroute

CALLS = 400
ROUTES = (
    RouteConfig.model_validate(
        {
            "id": "chat",
            "sticky_by": ["user"],
            "variants": [{"name": "stable", "model": "one"}, {"name": "trial", "model": "two"}],
        }
    ),
    RouteConfig.model_validate({"id": "fast", "model": "one"}),
)


def every_third(call: Call) -> Script:
    return Script(error=PeerFailed("`two`: broken")) if int(call.request.request_id[1:]) % 3 == 0 else Script()


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Serving]:
    """A server with a variant that fails every third call, after some hundred of them and their feedback."""
    echoes = (EchoBackend("one"), EchoBackend("two", script=every_third))
    settings = replace(settings_for(*echoes, folder=tmp_path, routes=ROUTES), state_url=default_url(tmp_path))
    async with serving(*echoes, folder=tmp_path, settings=settings) as running:
        for i in range(CALLS):
            routing = inference_pb2.RoutingOptions(user=f"u{i}")
            request = inference_pb2.GenerateRequest(model="chat", prompt="hi", request_id=f"r{i}", routing=routing)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await running.inference.Generate(request, timeout=WAIT_S)
        given = inference_pb2.RecordFeedbackRequest(request_id="r1", metric="helpful", bool_value=True)
        assert (await running.inference.RecordFeedback(given, timeout=WAIT_S)).matched
        yield running


async def ask(at: Serving, *arguments: str) -> Ended:
    env = {"POLYROUTE_ADMIN_ADDRESS": str(at.server.admin_address)}
    return await polyroute("experiment", "report", *arguments, env=env)


async def test_a_report_in_every_form(at: Serving, tmp_path: Path) -> None:
    table = await ask(at, "chat")
    assert table.code == 0, table.err
    assert "`trial` fails more often than `stable`" in table.out
    assert "traffic was split as configured" in table.out
    assert "helpful" in table.out
    found = json.loads((await ask(at, "chat", "--json")).out)
    assert found["sample_ratio"]["ok"]
    assert [v["name"] for v in found["variants"]] == ["stable", "trial"]
    assert sum(v["samples"] for v in found["variants"]) == CALLS
    assert found["series"] == []
    errors = next(c for c in found["comparisons"] if c["evidence"]["metric"] == "error_rate")
    assert (errors["guardrail"], errors["samples_needed"]) == (True, 0)
    assert 0 < errors["evidence"]["lower"] < 1 / 3 < errors["evidence"]["upper"]
    rows = list(csv.DictReader(io.StringIO((await ask(at, "chat", "--csv")).out)))
    assert {row["kind"] for row in rows} == {"estimate", "difference"}
    assert {row["n"] for row in rows if (row["kind"], row["metric"]) == ("difference", "error_rate")} == {str(CALLS)}
    for kind, beginning in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        file = tmp_path / f"over-time{kind}"
        drawn = await ask(at, "chat", "--picture", str(file))
        assert drawn.code == 0, drawn.err
        content = await asyncio.to_thread(file.read_bytes)
        assert content.startswith(beginning)


async def test_what_is_no_experiment_has_no_report(at: Serving) -> None:
    for route, code in (
        ("fast", grpc.StatusCode.INVALID_ARGUMENT),
        ("one", grpc.StatusCode.INVALID_ARGUMENT),
        ("none", grpc.StatusCode.NOT_FOUND),
        ("", grpc.StatusCode.INVALID_ARGUMENT),
    ):
        request = admin_pb2.GetExperimentReportRequest(route=route)
        assert (await refused(at.admin.GetExperimentReport(request, timeout=WAIT_S))).code is code
    assert (await ask(at, "chat", "--picture", "x.txt")).code == 2
    assert (await ask(at, "chat", "--csv", "--json")).code == 2


async def test_a_server_without_a_state_database_says_so(tmp_path: Path) -> None:
    echoes = (EchoBackend("one"), EchoBackend("two"))
    async with serving(*echoes, folder=tmp_path, routes=ROUTES) as at:
        request = admin_pb2.GetExperimentReportRequest(route="chat")
        error = await refused(at.admin.GetExperimentReport(request, timeout=WAIT_S))
        assert error.code is grpc.StatusCode.UNIMPLEMENTED
