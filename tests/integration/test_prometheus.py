"""Debian's Prometheus over a server under a mixed load: what dashboards and rules ask for is there, and is right."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import aiohttp
import grpc
import pytest

from polyroute.v1 import inference_pb2 as pb
from tests.counts import total
from tests.expressions import panels, rule_expressions
from tests.integration.grpc_serving import WAIT_S, refused, until
from tests.integration.mixed_load import Load, mixed
from tests.integration.prometheus_process import Prometheus, needs, scraping

INVALID = grpc.StatusCode.INVALID_ARGUMENT

pytestmark = [needs("prometheus"), needs("promtool")]


TRACING = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",  # a collector that is down
    "OTEL_TRACES_SAMPLER": "parentbased_always_off",
}
TRACE = "0af7651916cd43dd8448eb211c80319c"
JUNK = 10_000
JUNK_S = 300.0
"""Far more than that many calls take anywhere: no call of them hangs."""


async def test_everything_that_is_shown_is_there(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server and one Prometheus for all of it, because a worker takes seconds to start."""
    for name, value in TRACING.items():  # OpenTelemetry reads them of the process
        monkeypatch.setenv(name, value)
    async with (
        mixed(tmp_path / "cache", tiny_llama, TRACING) as load,
        scraping(str(load.at.server.http_address), tmp_path) as prometheus,
    ):
        for number in range(2):  # rates of what a first scrape finds there already are 0
            await load.round(number)
            await seen_by(prometheus, load)
        counts_are_those_of_the_callers(load)
        await every_expression_returns_data(prometheus)
        await exemplars_lead_to_traces(prometheus, load)
        await promtool_finds_nothing_wrong(load)
        await junk_makes_no_series(load)


async def seen_by(prometheus: Prometheus, load: Load) -> None:
    """Waits until a scrape has had all calls so far, those that ended for the server after their callers left too."""
    asked = sum(load.notes.outcomes.values())
    registry = load.at.server.registry
    await until(
        lambda: (
            (total(registry, "polyroute_requests_total") or 0) + (total(registry, "polyroute_rejected_total") or 0)
            == asked
        )
    )
    await prometheus.until("polyroute_requests_total or polyroute_rejected_total", asked)
    await prometheus.until("polyroute_experiment_records_total", 1)
    await prometheus.until("polyroute_shadow_copies_total", 2 * load.notes.outcomes["shadowed", "bypass"])
    await prometheus.until('polyroute_rollout_state{state="running"}', 1)


def counts_are_those_of_the_callers(load: Load) -> None:
    registry = load.at.server.registry
    for (name, outcome), number in load.notes.outcomes.items():
        if name == "nobody":
            where = {"route": "_other", "model": "_other", "outcome": outcome}
        elif outcome == "INVALID_ARGUMENT":
            assert total(registry, "polyroute_rejected_total", face="grpc", reason=outcome) == number
            continue
        elif outcome.islower():
            where = {"route": name, "cache": outcome, "outcome": "ok"}
        else:
            where = {"route": name, "outcome": outcome}
        assert total(registry, "polyroute_requests_total", **where) == number, (name, outcome)
        assert (
            total(registry, "polyroute_requests_total", outcome="CANCELLED")
            == load.notes.outcomes["endless", "CANCELLED"]
        )
    for (name, kind), number in load.notes.tokens.items():
        counted = total(registry, "gen_ai_client_token_usage_sum", gen_ai_request_model=name, gen_ai_token_type=kind)
        assert counted == number, (name, kind)
    for (deployment, outcome), number in load.notes.attempts.items():
        counted = total(registry, "polyroute_attempts_total", deployment=deployment, outcome=outcome)
        assert counted == number, (deployment, outcome)
    for (deployment, replica, outcome), number in load.notes.replicas.items():
        of = {"deployment": deployment, "replica": replica, "outcome": outcome}
        counted = total(registry, "polyroute_replica_attempts_total", **of)
        pooled = deployment not in ("one", "two", "narrow", "endless")  # echoes stand where a pool would
        assert counted == (number if pooled else None), of
    assert (total(registry, "polyroute_cache_tier_bytes", tier="memory") or 0) > 0
    copied = load.notes.outcomes["shadowed", "bypass"]
    assert copied > 0
    for shadow, result in (("two", "compared"), ("gone", "copy_failed")):
        of = {"route": "shadowed", "deployment": shadow, "result": result}
        assert total(registry, "polyroute_shadow_copies_total", **of) == copied, of
    assert total(registry, "polyroute_shadow_edit_distance_bucket", route="shadowed", le="0.0") == copied
    assert total(registry, "polyroute_rollout_weight", route="rolled") == 0.25
    assert total(registry, "polyroute_rollout_moves_total", route="rolled", state="running") == 1
    retried = load.notes.attempts["pair", "PEER_FAILED"]
    assert retried > 0
    assert total(registry, "polyroute_retries_total", deployment="pair", outcome="answered") == retried
    assert total(registry, "polyroute_fallbacks_total", deployment="gone") == load.notes.attempts["gone", "PEER_FAILED"]


async def every_expression_returns_data(prometheus: Prometheus) -> None:
    await all_recorded(prometheus)
    empty = await without_data(prometheus, [*panels(), *rule_expressions()])
    assert empty == []
    planted = [("planted", 'sum(rate(polyroute_requests_totals{model=~".*"}[5m]))'), ("0 / 0", "vector(0) / vector(0)")]
    assert await without_data(prometheus, planted) == ["planted", "0 / 0"]
    with pytest.raises(ValueError, match="parse error"):
        await without_data(prometheus, [("broken", "sum(rate(")])


async def all_recorded(prometheus: Prometheus) -> None:
    """Waits until every rule has been evaluated with what there is now, and none has failed."""
    evaluated = await prometheus.get("rules")
    names = {rule["name"] for group in evaluated["groups"] for rule in group["rules"]}
    assert names == {name for name, _ in rule_expressions()}
    assert {rule["health"] for group in evaluated["groups"] for rule in group["rules"]} <= {"ok", "unknown"}
    for name, _ in rule_expressions():
        if ":" in name:
            await prometheus.until(f"count({name})", 1)


async def without_data(prometheus: Prometheus, expressions: Iterable[tuple[str, str]]) -> list[str]:
    """The names of expressions that return nothing, or nothing but what is no number."""
    return [name for name, expression in expressions if not await prometheus.query(expression)]


async def promtool_finds_nothing_wrong(load: Load) -> None:
    async with aiohttp.ClientSession() as client:
        text = await metrics_of(load, client)
    process = await asyncio.create_subprocess_exec(
        "promtool", "check", "metrics", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, complaints = await process.communicate(text.encode())
    assert (process.returncode, complaints.decode()) == (0, "")


async def exemplars_lead_to_traces(prometheus: Prometheus, load: Load) -> None:
    """From the graphs to the one call that was sampled, and to no other."""
    graphs = [expression for name, expression in panels() if name.startswith("overview: ") and "p99" in name]
    times = [graph for graph in graphs if "gen_ai_server" in graph]
    assert len(times) == 2
    assert await prometheus.exemplars(times[0]) == set()
    await load.ask("pair", "to be traced", traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    async with asyncio.timeout(WAIT_S):
        while [await prometheus.exemplars(graph) for graph in times] != [{TRACE}] * 2:  # noqa: ASYNC110 - see `until`
            await asyncio.sleep(0.1)


async def junk_makes_no_series(load: Load) -> None:
    """Neither of models, nor of variants, users and labels."""
    await junk(load, 0)
    async with aiohttp.ClientSession() as client:
        before = await metrics_of(load, client)
        numbers = iter(range(1, JUNK))

        async def ask() -> None:
            for number in numbers:
                await junk(load, number)

        async with asyncio.timeout(JUNK_S), asyncio.TaskGroup() as callers:
            for _ in range(16):
                callers.create_task(ask())
        after = await metrics_of(load, client)
    assert names_in(after) == names_in(before)
    assert "junk" not in after


async def junk(load: Load, number: int) -> None:
    """A name that is none; every hundredth time also a variant that is none, and a call with names of its own."""
    name = f"junk-{number}"
    found = await refused(load.at.inference.Generate(pb.GenerateRequest(model=name, prompt="who"), timeout=WAIT_S))
    assert found.reason == "UNKNOWN_MODEL"
    if number % 100 == 0:
        routing = pb.RoutingOptions(variant=name, user=name)
        request = pb.GenerateRequest(model="split", prompt="who", routing=routing)
        assert (await refused(load.at.inference.Generate(request, timeout=WAIT_S))).code is INVALID
        own = pb.RoutingOptions(user=name, session=name, affinity_key=name)
        request = pb.GenerateRequest(model="pair", prompt="who", routing=own, labels={name: name}, request_id=name)
        await load.at.inference.Generate(request, timeout=WAIT_S)


async def metrics_of(load: Load, client: aiohttp.ClientSession) -> str:
    async with client.get(f"http://{load.at.server.http_address}/metrics") as answer:
        return await answer.text()


def names_in(text: str) -> set[str]:
    """The series, without their values."""
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}
