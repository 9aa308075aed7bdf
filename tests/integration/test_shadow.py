"""A shadow that hangs, fails, is slow or overrun changes nothing for callers, over gRPC and REST."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.config import RouteConfig
from polyroute.core.errors import PeerFailed
from polyroute.routing.experiments.database import default_url
from polyroute.v1 import admin_pb2, inference_pb2, models_pb2
from tests.integration.grpc_serving import WAIT_S, Serving, serving, settings_for
from tests.integration.test_client_cli import polyroute

CALLS = 24
SHADOWED = RouteConfig.model_validate(
    {"id": "chat", "model": "one", "shadow": [{"model": "two", "max_concurrency": 2, "max_queue": 3}]}
)
PLAIN = RouteConfig.model_validate({"id": "plain", "model": "one"})


def answers(call: Call) -> Script:
    """Of the primary: every fifth fails, every seventh breaks off."""
    number = int(call.request_id.removeprefix("r"))
    if number % 5 == 0:
        return Script(error=PeerFailed("`one`: broken"))
    if number % 7 == 0:
        return Script(error=PeerFailed("`one`: broken"), error_after=1)
    return Script()


async def _slowly(_place: int) -> None:
    await asyncio.sleep(0.02)


SHADOWS: dict[str, Callable[[], Any]] = {
    "hung": lambda: Script(gate=asyncio.Event()),
    "hung amid its answer": lambda: Script(gate=asyncio.Event(), gate_after=1),
    "failing": lambda: Script(error=PeerFailed("`two`: broken")),
    "breaking off": lambda: Script(error=PeerFailed("`two`: broken"), error_after=1),
    "broken in our own code": lambda: Script(error=RuntimeError("bug")),
    "slow": lambda: Script(pause=_slowly),
    "fast": Script,
}


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Serving]:
    echoes = (EchoBackend("one", script=answers), EchoBackend("two"))
    settings = replace(
        settings_for(*echoes, folder=tmp_path, routes=(SHADOWED, PLAIN)), state_url=default_url(tmp_path)
    )
    async with serving(*echoes, folder=tmp_path, settings=settings) as running:
        yield running


def shadow_of(at: Serving) -> EchoBackend:
    backend = at.server.gateway.snapshot.deployments["two"].backend
    assert isinstance(backend, EchoBackend)
    return backend


async def by_grpc(at: Serving, model: str, number: int) -> tuple[str, str]:
    """Outcome and text of a streamed call, as far as it came."""
    request = inference_pb2.GenerateRequest(model=model, prompt=f"say {number} please", request_id=f"r{number}")
    text = ""
    try:
        async for event in at.inference.StreamGenerate(request, timeout=WAIT_S):
            text += event.delta.text
    except grpc.aio.AioRpcError as error:
        return error.code().name, text
    return "OK", text


async def by_rest(at: Serving, session: aiohttp.ClientSession, model: str, number: int) -> tuple[str, str]:
    url, headers = f"http://{at.server.http_address}/v1/generate", {"X-Request-ID": f"r{number}"}
    body = {"model": model, "prompt": f"say {number} please"}
    async with session.post(url, json=body, headers=headers) as answer:
        told = json.loads(await answer.text())
        return str(answer.status), told.get("output", "")


async def pairs_of(at: Serving, route: str, count: int) -> admin_pb2.GetExperimentReportResponse:
    """The report on a route once it tells of so many pairs, missing ones included."""
    request = admin_pb2.GetExperimentReportRequest(route=route)
    async with asyncio.timeout(WAIT_S):
        while True:
            report = await at.admin.GetExperimentReport(request, timeout=WAIT_S)
            if report.shadows and report.shadows[0].pairs + sum(report.shadows[0].missing.values()) == count:
                return report


@pytest.mark.parametrize("kind", SHADOWS)
async def test_callers_fare_as_without_a_shadow(at: Serving, kind: str) -> None:
    shadow_of(at).script = SHADOWS[kind]()
    async with aiohttp.ClientSession() as session:
        fared = {}
        for model in ("plain", "chat"):
            grpc_calls = await asyncio.gather(*(by_grpc(at, model, number) for number in range(CALLS)))
            rest_calls = await asyncio.gather(*(by_rest(at, session, model, number) for number in range(CALLS)))
            fared[model] = (grpc_calls, rest_calls)
    assert fared["chat"] == fared["plain"]
    assert {outcome for outcome, _ in fared["plain"][0]} == {"OK", "UNAVAILABLE"}
    assert {outcome for outcome, _ in fared["plain"][1]} == {"200", "502"}
    assert shadow_of(at).calls, "copies were made"
    assert shadow_of(at).open <= 2


async def test_the_report_tells_of_the_pairs(at: Serving) -> None:
    at.server.gateway.snapshot.deployments["one"].backend.script = Script()  # type: ignore[attr-defined]
    for number in range(CALLS):
        assert (await by_grpc(at, "chat", number))[0] == "OK"
    report = await pairs_of(at, "chat", CALLS)
    (shadow,) = report.shadows
    assert (shadow.deployment, shadow.exact_matches, shadow.mean_edit_distance) == ("two", shadow.pairs, 0.0)
    assert report.summary == f"{shadow.pairs} of {shadow.pairs} pairs with `two` are equal."
    assert shadow.figures["exact"]["value"] == 1.0
    assert shadow.figures["total_ratio"]["value"] > 0
    env = {"POLYROUTE_ADMIN_ADDRESS": str(at.server.admin_address)}
    printed = await polyroute("experiment", "report", "chat", env=env)
    assert f"shadow two: {shadow.pairs} pairs, {shadow.pairs} equal" in printed.out


async def test_the_worst_pairs_can_be_read_where_the_route_records_content(tmp_path: Path) -> None:
    said = "\N{GREEK SMALL LETTER OMEGA}" * 5_000
    echoes = (EchoBackend("one"), EchoBackend("two", script=Script(texts=["b", said])))
    shadow = {"model": "one", "shadow": [{"model": "two"}]}
    routes = [RouteConfig.model_validate({"id": "chat", "record_content": True} | shadow)]
    routes.append(RouteConfig.model_validate({"id": "secret"} | shadow))
    settings = replace(settings_for(*echoes, folder=tmp_path, routes=routes), state_url=default_url(tmp_path))
    async with serving(*echoes, folder=tmp_path, settings=settings) as at:
        env = {"POLYROUTE_ADMIN_ADDRESS": str(at.server.admin_address)}
        for route in ("chat", "secret"):
            assert (await by_grpc(at, route, 1))[0] == "OK"
            await pairs_of(at, route, 1)
        printed = (await polyroute("experiment", "report", "chat", "--worst", "1", env=env)).out
        assert "of request r1: edit distance 1" in printed
        assert "  asked: say 1 please" in printed
        assert "  caller: say 1 please" in printed
        assert f"  two: b{said[:1999]}\n" in printed
        told = json.loads((await polyroute("experiment", "report", "chat", "--json", env=env)).out)
        assert told["shadows"][0]["figures"]["worst"][0]["copy_text"] == f"b{said[:1999]}"
        table = (await polyroute("experiment", "report", "chat", "--csv", env=env)).out
        assert "pairs,two,,echo-1,edit_distance,,1.0," in table
        printed = (await polyroute("experiment", "report", "secret", "--worst", "1", env=env)).out
        assert "of request r1: edit distance 1" in printed
        assert "asked" not in printed
        assert "please" not in (await polyroute("experiment", "report", "secret", "--json", env=env)).out


async def test_a_plan_names_the_shadows_of_its_route(at: Serving) -> None:
    asked = inference_pb2.GenerateRequest(model="chat", prompt="hi")
    plan = await at.models.ExplainRoute(models_pb2.ExplainRouteRequest(request=asked), timeout=WAIT_S)
    assert [(shadow.deployment, shadow.sample) for shadow in plan.shadows] == [("two", 1.0)]
