"""Calls at a steady rate through the router, with and without what an experiment adds to them, in turns."""

from __future__ import annotations

import asyncio
import resource
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry

from benchmarks.records.figures import percentile
from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.config import Config
from polyroute.core.request import CacheMode, CacheOptions, Request, RoutingOptions
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.routing.experiments.database import Database, default_url
from polyroute.routing.experiments.journal import Journal
from polyroute.routing.experiments.shadow.shadows import Shadows
from polyroute.routing.gateway import Gateway
from polyroute.routing.metrics import Metrics
from polyroute.routing.registry import Snapshot
from polyroute.routing.stack import deploy
from polyroute.routing.streams import generator
from polyroute.server.wire.stored import AnswerCodec

_ROUNDS: Final = 6
_BYPASS: Final = CacheOptions(CacheMode.BYPASS)


async def beside(kind: str, folder: Path, rate: int, seconds: float) -> str:
    """Latency of calls to a plain route and to one with records (or a slow shadow), in alternating turns."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    journal = Journal(Database(default_url(folder)), metrics, 86400.0)
    shadows = Shadows(journal, metrics)
    gateway = _gateway(kind, metrics, journal, shadows)
    await _turn(gateway, "plain", rate, 1.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took: dict[str, list[float]] = {"plain": [], "chat": []}
    for _ in range(_ROUNDS):
        for route in took:
            took[route] += await _turn(gateway, route, rate, seconds / _ROUNDS)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    await shadows.close()
    await journal.flush()
    figures = " | ".join(f"{percentile(took[route], p) * 1e6:.0f}" for p in (50, 99, 99.9) for route in took)
    kept = {result: _count(registry, result) for result in ("written", "dropped")}
    await journal.close()
    return (
        f"{kind}: {rate}/s, {seconds:g} s each; p50 plain | with, p99, p99.9 in us: {figures}; "
        f"written {kept['written']:.0f}, dropped {kept['dropped']:.0f}; peak memory grew by {grown / 1024:.0f} MiB"
    )


def _gateway(kind: str, metrics: Metrics, journal: Journal, shadows: Shadows) -> Gateway:
    chat: dict[str, Any] = {"id": "chat", "sticky_by": ["user"]}
    if kind == "records":
        chat["variants"] = [{"name": "a", "model": "one"}, {"name": "b", "model": "two"}]
    else:
        chat |= {"model": "one", "shadow": [{"model": "slow", "sample": 0.1, "max_concurrency": 4}]}
    config = Config.model_validate(
        {
            "models": [{"id": m, "type": "remote", "base_url": "http://none:1"} for m in ("one", "two", "slow")],
            "routes": [chat, {"id": "plain", "model": "one"}],
            "default_model": "one",
        }
    )
    backends = {"one": EchoBackend("one"), "two": EchoBackend("two"), "slow": EchoBackend("slow", script=_SLOW)}
    answers = Answers(MemoryTier(2**20), [], Invalidations(), AnswerCodec())
    deployments = {m.id: deploy(m, backends[m.id], answers=answers, metrics=metrics) for m in config.effective_models}
    return Gateway(Snapshot.of(config, deployments), answers, metrics, recorder=journal, shadows=shadows)


async def _slowly(_place: int) -> None:
    await asyncio.sleep(0.05)


_SLOW: Final = Script(pause=_slowly)


async def _turn(gateway: Gateway, route: str, rate: int, seconds: float) -> list[float]:
    """How long each call took, in seconds; they begin when they are due, whether others have ended or not."""
    took: list[float] = []
    calls = []
    begun = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        late = time.perf_counter() - due
        if late < 0:
            await asyncio.sleep(-late)
        calls.append(asyncio.create_task(_call(gateway, route, number, took)))
        if len(calls) > 1000:
            await asyncio.gather(*calls)
            calls.clear()
    await asyncio.gather(*calls)
    return took


async def _call(gateway: Gateway, route: str, number: int, took: list[float]) -> None:
    routing = RoutingOptions(user=f"u{number % 5000}")
    request = Request(model=route, prompt="one two three four five six", routing=routing, cache=_BYPASS)
    begun = time.perf_counter()
    async with aclosing(generator(gateway.generate(Call(request, f"r{number}")))) as events:
        async for _event in events:
            pass
    took.append(time.perf_counter() - begun)


def _count(registry: CollectorRegistry, result: str) -> float:
    return registry.get_sample_value("polyroute_experiment_records_total", {"result": result}) or 0.0
