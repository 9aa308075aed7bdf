"""The REST shim on a real socket, over echo backends that the test holds."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend
from polyroute.core.config import CacheConfig, Config, LimitsConfig, RemoteConfig, RouteConfig
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.disk_tier import DiskTier
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.routing.gateway import Gateway
from polyroute.routing.metrics import Metrics
from polyroute.routing.registry import Snapshot
from polyroute.routing.stack import deploy
from polyroute.server.rest.app import build_rest
from polyroute.server.rest.runner import RestRunner
from polyroute.server.wire.stored import AnswerCodec

WAIT_S = 60.0
_NO_URL = "http://127.0.0.1:9"
_NO_CACHE = CacheConfig(mode="off")
_NOWHERE = Path("/nonexistent")


@asynccontextmanager
async def gateway_over(
    *backends: EchoBackend,
    routes: tuple[RouteConfig, ...] = (),
    cache: CacheConfig = _NO_CACHE,
    limits: LimitsConfig | None = None,
    folder: Path = _NOWHERE,
    registry: CollectorRegistry | None = None,
) -> AsyncIterator[Gateway]:
    """The router over one echo backend a model; the first is the default."""
    models = tuple(RemoteConfig(id=b.model, type="remote", base_urls=(_NO_URL,)) for b in backends)
    default = backends[0].model if backends else None
    config = Config(models=models, routes=routes, default_model=default, cache=cache, limits=limits or LimitsConfig())
    disk = GuardedTier(DiskTier(folder, 2**24))
    answers = Answers(MemoryTier(2**24), [disk], Invalidations(), AnswerCodec())
    metrics = Metrics(registry or CollectorRegistry())
    deployments = {
        c.id: deploy(c, b, answers=answers, metrics=metrics)
        for c, b in zip(config.effective_models, backends, strict=True)
    }
    gateway = Gateway(Snapshot.of(config, deployments), answers, metrics)
    if cache.mode != "off":
        await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.close()


@dataclass(slots=True)
class Rest:
    """A running shim and a client of it."""

    url: str
    client: aiohttp.ClientSession
    draining: bool = False

    async def post(
        self, path: str, body: object, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, JSON and headers of a POST; `body` is sent as it is where it is bytes."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        async with self.client.post(self.url + path, data=io.BytesIO(raw), headers=sent) as answer:
            return answer.status, await answer.json(), answer.headers

    async def refused(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The error of a POST that must be answered with 400."""
        status, told, _ = await self.post(path, body, headers)
        assert status == 400, told
        error: dict[str, Any] = told["error"]
        assert error["type"] == "invalid_request_error"
        return error

    async def get(self, path: str, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers of a GET."""
        async with self.client.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.read(), answer.headers

    async def get_json(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        status, body, _ = await self.get(path)
        return status, json.loads(body)

    async def events(self, path: str, body: object) -> list[tuple[str, Any]]:
        """The server-sent events of a stream: name, and JSON or text."""
        sent = {"Content-Type": "application/json"}
        async with self.client.post(self.url + path, data=json.dumps(body), headers=sent) as answer:
            assert answer.status == 200, await answer.text()
            return events_of((await answer.read()).decode())


def events_of(text: str) -> list[tuple[str, Any]]:
    """Server-sent events as text, taken apart; every one must be whole."""
    assert not text or text.endswith("\n\n")
    events: list[tuple[str, Any]] = []
    for block in text.split("\n\n")[:-1]:
        lines = block.split("\n")
        name = lines.pop(0).removeprefix("event: ") if lines[0].startswith("event: ") else ""
        assert len(lines) == 1, block
        told = lines[0].removeprefix("data: ")
        events.append((name, told if told == "[DONE]" else json.loads(told)))
    return events


@asynccontextmanager
async def rest_over(
    *backends: EchoBackend,
    limits: LimitsConfig | None = None,
    routes: tuple[RouteConfig, ...] = (),
    cache: CacheConfig = _NO_CACHE,
    folder: Path = _NOWHERE,
) -> AsyncIterator[Rest]:
    """The shim over the router over echo backends, run as the server runs it."""
    registry = CollectorRegistry()
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with (
        gateway_over(*backends, routes=routes, cache=cache, limits=limits, folder=folder, registry=registry) as gateway,
        aiohttp.ClientSession(timeout=timeout) as client,
    ):
        rest = Rest("", client)
        app = build_rest(gateway, registry=registry, drain=lambda: rest.draining)
        runner = RestRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            rest.url = "http://{}:{}".format(*runner.addresses[0][:2])
            yield rest
        finally:
            await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that must happen."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to give
            await asyncio.sleep(0.005)
