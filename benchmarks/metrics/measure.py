"""Counts calls of many models on one registry, and renders it beside a running event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from polyroute.core.backend import AttemptCounts, BackendStatus, ModelState, ReplicaStatus
from polyroute.core.event import CacheResult, Route, Timing, Usage
from polyroute.core.telemetry import REPLICA_FIRST_TOKEN
from polyroute.routing.metrics import Metrics
from polyroute.routing.views import ModelView
from polyroute.server.process_metrics import metrics_on
from polyroute.server.rest.exposition import Encode, parts

COLUMNS: Final = {
    "series": "series",
    "text_mb": "size of the text, MB",
    "render_s": "render as Prometheus text, s",
    "openmetrics_s": "render as OpenMetrics, s",
    "late_ms": "event loop late by, at worst while rendering, ms",
    "call_us": "count a call, us",
    "exemplar_us": "count a call with an exemplar, us",
    "new_us": "count a call whose series are new, us",
}
_TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
_OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
_RENDERS: Final = 5


@dataclass(frozen=True, slots=True)
class Figures:
    """What a number of models costs; names end in their units."""

    models: int
    series: int
    text_mb: float
    render_s: float
    openmetrics_s: float
    late_ms: float
    call_us: float
    exemplar_us: float
    new_us: float


def measure(models: int, calls: int) -> Figures:
    """The figures of `models` models, each of which answers, is cached and fails; a mean is of `calls` calls."""
    registry = CollectorRegistry(auto_describe=True)
    metrics = metrics_on(registry)
    names = [f"org/model-{i}" for i in range(models)]
    metrics.know(names)
    metrics.watch(lambda: _views(names))
    begun = time.perf_counter()
    for name in names:
        for route, outcome in _endings(name):
            _count(metrics, route, outcome)
        metrics.queued(name, 0.0)
        metrics.attempted(name, "ok")
    new_us = (time.perf_counter() - begun) / (3 * models) * 1e6
    text, render_s, late_ms = asyncio.run(_render(registry, ""))
    _, openmetrics_s, _ = asyncio.run(_render(registry, _OPENMETRICS))
    route = Route(requested=names[0], deployment=names[0], cache=CacheResult.MISS)
    return Figures(
        models=models,
        series=sum(not line.startswith(b"#") for line in text.splitlines()),
        text_mb=len(text) / 1e6,
        render_s=render_s,
        openmetrics_s=openmetrics_s,
        late_ms=late_ms,
        call_us=_mean_us(calls, lambda: _count(metrics, route, "ok")),
        exemplar_us=_mean_us(calls, lambda: _count(metrics, route, "ok", _TRACE)),
        new_us=new_us,
    )


def _endings(name: str) -> Iterator[tuple[Route, str]]:
    for cache, outcome in ((CacheResult.MISS, "ok"), (CacheResult.HIT, "ok"), (CacheResult.UNSPECIFIED, "PEER_FAILED")):
        yield Route(requested=name, deployment=name, cache=cache), outcome


def _views(names: list[str]) -> Iterator[ModelView]:
    begun = tuple(1 for _ in (*REPLICA_FIRST_TOKEN.buckets, float("inf")))
    attempts = AttemptCounts({"ok": 9, "PEER_FAILED": 1}, begun, first_s=8.0, ended_s=80.0)
    for name in names:
        replica = ReplicaStatus(f"http://{name}:8000", ModelState.WARM, breaker="closed", attempts=attempts)
        yield ModelView(name, "remote", BackendStatus(ModelState.WARM, replicas=(replica,)), max_concurrency=64)


def _count(metrics: Metrics, route: Route, outcome: str, trace_id: str = "") -> None:
    timing, usage = Timing(0.0, 0.8, 0.1, 0.9, 0.0005), Usage(100, 50) if outcome == "ok" else Usage()
    metrics.call_begun()
    metrics.call_ended(route, outcome, timing, usage, trace_id=trace_id)


async def _render(registry: CollectorRegistry, accept: str) -> tuple[bytes, float, float]:
    """The text, the median time of a rendering in a thread, and how late the loop was at worst meanwhile."""
    encode, _ = choose_encoder(accept)
    late: list[float] = []
    watching = asyncio.create_task(_watch(late))
    took: list[float] = []
    text = b""
    with ThreadPoolExecutor(1) as threads:
        for _ in range(_RENDERS):
            begun = time.perf_counter()
            text = await asyncio.get_running_loop().run_in_executor(threads, _text, registry, encode)
            took.append(time.perf_counter() - begun)
    watching.cancel()
    return text, median(took), max(late, default=0.0) * 1000


def _text(registry: CollectorRegistry, encode: Encode) -> bytes:
    return b"".join(parts(registry, encode))


async def _watch(late: list[float]) -> None:
    while True:
        due = time.perf_counter() + 0.001
        await asyncio.sleep(0.001)
        late.append(time.perf_counter() - due)


def _mean_us(calls: int, work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - begun) / calls * 1e6
