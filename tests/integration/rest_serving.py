"""The REST shim on a real socket, over echo backends that the test holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from polyroute.backends.echo import EchoBackend
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.config import LimitsConfig
from polyroute.core.errors import UnknownModel
from polyroute.core.event import Attempt, Event, Route, Started
from polyroute.routing.gateway import Gateway
from polyroute.routing.views import ModelView
from polyroute.server.rest.app import build_rest

WAIT_S = 60.0


class EchoGateway(Gateway):
    """One echo backend a model; the first is the default."""

    def __init__(self, *backends: EchoBackend) -> None:
        self._backends = {b.model: b for b in backends}

    @property
    def default_model(self) -> str:
        return next(iter(self._backends), "")

    def generate(self, call: Call) -> AsyncIterator[Event]:
        return self._generate(call)

    async def _generate(self, call: Call) -> AsyncGenerator[Event, None]:
        backend = self._backend(call.request.model)
        async with aclosing(backend._stream(call)) as events:
            async for event in events:
                yield self._routed(call, event) if isinstance(event, Started) else event

    def _routed(self, call: Call, event: Started) -> Started:
        name = call.request.model or self.default_model
        trace = call.trace[0][1][3:35] if call.trace else ""
        route = replace(event.route, requested=name, deployment=event.route.model, attempts=(Attempt(name),))
        return Started(replace(route, reasons=(f"`{name}` is a model",), trace_id=trace))

    def _backend(self, name: str) -> EchoBackend:
        if (name or self.default_model) not in self._backends:
            raise UnknownModel(name, tuple(n for n in self._backends if n[:2] == name[:2]))
        return self._backends[name or self.default_model]

    def models(self) -> tuple[ModelView, ...]:
        return tuple(self.model(name) for name in sorted(self._backends))

    def model(self, name: str) -> ModelView:
        backend = self._backend(name)
        return ModelView(backend.model, "local", backend.status(), default=backend.model == self.default_model)

    def ready(self) -> bool:
        return bool(self._backends) and self._backend("").state is ModelState.WARM


@dataclass(slots=True)
class Rest:
    """A running shim and a client of it."""

    url: str
    client: aiohttp.ClientSession
    registry: CollectorRegistry
    draining: bool = False

    async def post(
        self, path: str, body: object, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, JSON and headers of a POST; `body` is sent as it is where it is bytes."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        async with self.client.post(self.url + path, data=raw, headers=sent) as answer:
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
async def rest_over(gateway: Gateway, limits: LimitsConfig | None = None) -> AsyncIterator[Rest]:
    """The shim over a gateway, as the server runs it."""
    registry = CollectorRegistry()
    Counter("polyroute_test", "A metric to find", registry=registry).inc()
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        rest = Rest("", client, registry)
        app = build_rest(gateway, limits=limits or LimitsConfig(), registry=registry, drain=lambda: rest.draining)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
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
        while not condition():
            await asyncio.sleep(0.005)
