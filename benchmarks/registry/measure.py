"""Starts a server over many models at one answering peer, and takes the time of what depends on how many they are."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import generate_latest

from polyroute.core.call import Call
from polyroute.core.config_file import read_config
from polyroute.core.errors import UnknownModel
from polyroute.core.request import Request, RoutingOptions
from polyroute.server.app import Server
from polyroute.server.rpc.models import PAGE_SIZE, ModelService
from polyroute.server.settings import Flags, settings
from polyroute.v1 import models_pb2

ROWS: Final = {
    "resolve_and_plan_us": "resolve and plan a call, us",
    "unknown_name_us": "refuse an unknown name with near ones, us",
    "page_us": f"a page of ListModels ({PAGE_SIZE} models), us",
    "scrape_s": "render /metrics, s",
    "check_s": "read and check the file, s",
    "start_s": "start, to listening, s",
    "ready_s": "start, to the default model ready, s",
    "reload_unchanged_s": "reload, nothing changed, s",
    "reload_adjusted_s": "reload, one model's limit changed, s",
    "reload_rebuilt_s": "reload, one model rebuilt, s",
    "reload_added_s": "reload, one model added and one removed, s",
    "reload_lag_ms": "longest hold-up of calls by these reloads, ms",
    "memory_mb": "memory beyond that of an empty process, MB",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a size costs; names end in their units."""

    models: int
    routes: int
    resolve_and_plan_us: float
    unknown_name_us: float
    page_us: float
    scrape_s: float
    check_s: float
    start_s: float
    ready_s: float
    reload_unchanged_s: float
    reload_adjusted_s: float
    reload_rebuilt_s: float
    reload_added_s: float
    reload_lag_ms: float
    memory_mb: float


async def measure(models: int, calls: int, folder: Path) -> Figures:
    """The figures of `models` models and a tenth as many routes; a mean is of `calls` lookups."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    empty_mb, routes, path = _memory_mb(), max(1, models // 10), folder / "models.yaml"
    async with _peer() as url:
        path.write_text(_text(url, models, routes))
        begun = time.perf_counter()
        await asyncio.to_thread(read_config, path, {})
        check_s = time.perf_counter() - begun
        environ = {"POLYROUTE_CACHE_DIR": str(folder / "cache")}
        anywhere = {f"{name}_address": "127.0.0.1:0" for name in ("grpc", "http", "admin")}
        begun = time.perf_counter()
        server = Server(settings(Flags(config=path, watch=False, **anywhere), environ), environ=environ)  # type: ignore[arg-type]
        async with server:
            start_s = time.perf_counter() - begun
            while not server.gateway.ready():  # noqa: ASYNC110 - readiness has no event
                await asyncio.sleep(0.001)
            ready_s = time.perf_counter() - begun
            memory_mb = _memory_mb() - empty_mb
            gc.freeze()  # as `polyroute serve` does
            lag = _Lag()
            reloads = []
            for change in ({}, {"max_queue": 7}, {"peer_model": "other"}, {"id": "org/another"}):
                path.write_text(_text(url, models, routes, last=change))
                reloads.append(await _reload(server, lag))
            return Figures(
                models,
                routes,
                resolve_and_plan_us=_plan_us(server, models, routes, calls),
                unknown_name_us=_unknown_us(server, models, max(1, calls // 100)),
                page_us=await _page_us(server, models, max(1, calls // 100)),
                scrape_s=_seconds(lambda: generate_latest(server.registry)),
                check_s=check_s,
                start_s=start_s,
                ready_s=ready_s,
                reload_unchanged_s=reloads[0],
                reload_adjusted_s=reloads[1],
                reload_rebuilt_s=reloads[2],
                reload_added_s=reloads[3],
                reload_lag_ms=lag.longest_s * 1000,
                memory_mb=memory_mb,
            )


def _text(url: str, models: int, routes: int, last: dict[str, object] | None = None) -> str:
    """A `models.yaml`; `last` changes the options of the last model, which no route leads to."""
    lines = ["default_model: org/model-0", "models:"]
    for i in range(models):
        options = {"id": f"org/model-{i}", "type": "remote", "base_url": url, "max_concurrency": 64}
        if i == models - 1:
            options |= last or {}
        lines.append("  - " + "\n    ".join(f"{key}: {value}" for key, value in options.items()))
    lines.append("routes:")
    for i in range(routes):
        a, b, c = (f"org/model-{(i * 3 + step) % (models - 1)}" for step in range(3))
        lines += [f"  - id: route-{i}", f"    variants: [{{name: a, model: {a}, weight: 9}}, {{name: b, model: {b}}}]"]
        lines += [f"    fallback: [{c}]"]
    return "\n".join([*lines, ""])


@asynccontextmanager
async def _peer() -> AsyncIterator[str]:
    """Answers what models it has; the address that it answers at."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    yield "http://{}:{}".format(*runner.addresses[0][:2])
    await runner.cleanup()


class _Lag:
    """How late the event loop was at worst to run what was due."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def run(self) -> None:
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            self.longest_s = max(self.longest_s, time.perf_counter() - due)


async def _reload(server: Server, lag: _Lag) -> float:
    watching = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    begun = time.perf_counter()
    done = await server.reload.reload("call")
    took_s = time.perf_counter() - begun
    watching.cancel()
    assert not done.problems, done.problems[0]
    return took_s


def _plan_us(server: Server, models: int, routes: int, calls: int) -> float:
    chance = random.Random(1)
    names = [
        f"route-{chance.randrange(routes)}" if chance.random() < 0.5 else f"org/model-{chance.randrange(models - 1)}"
        for _ in range(calls)
    ]
    options = RoutingOptions(user="u")
    planned = [Call(Request(model=name, prompt="x", routing=options), "r") for name in names]
    snapshot = server.gateway.snapshot
    begun = time.perf_counter()
    for call in planned:
        snapshot.decide(call)
    return (time.perf_counter() - begun) / calls * 1e6


def _unknown_us(server: Server, models: int, calls: int) -> float:
    chance = random.Random(2)
    names = [f"org/modle-{chance.randrange(models)}x" for _ in range(calls)]
    begun = time.perf_counter()
    for name in names:
        try:
            server.gateway.snapshot.resolve(name)
        except UnknownModel:
            continue
    return (time.perf_counter() - begun) / calls * 1e6


async def _page_us(server: Server, models: int, calls: int) -> float:
    service = ModelService(server.gateway)
    token, begun = "", time.perf_counter()
    for _ in range(calls):
        page = await service.ListModels(models_pb2.ListModelsRequest(page_token=token), None)  # type: ignore[arg-type]
        token = page.next_page_token
    return (time.perf_counter() - begun) / calls * 1e6


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _memory_mb() -> float:
    fields = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in fields if line.startswith("VmRSS"))) / 1024
