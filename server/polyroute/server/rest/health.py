"""The pages for those who operate the server: liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeAlias, cast

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from typing_extensions import TypedDict

from polyroute.routing.gateway import Gateway
from polyroute.server.rest.exposition import Encode, parts
from polyroute.server.rest.failures import json_response


class Alive(TypedDict):
    """The process lives."""

    status: Literal["ok"]


class Readiness(TypedDict):
    """Whether calls are answered now; where not, `reason` and the default model's `detail` say why."""

    status: Literal["ready", "not_ready"]
    reason: str
    default_model: str
    state: str
    detail: str


Expose: TypeAlias = Callable[[str, Sequence[str]], AsyncIterator[bytes]]
"""Makes the text of `/metrics` in parts: in the form of an `Accept` header, of the samples of these names or of all."""


class HealthPages:
    """What a probe or a scraper asks for; none of them waits for a model.

    `expose` stands in for the text that the `registry` makes, where other processes have a part in it.
    """

    def __init__(
        self, gateway: Gateway, registry: CollectorRegistry, draining: Callable[[], bool], expose: Expose | None = None
    ) -> None:
        self._gateway = gateway
        self._registry = registry
        self._expose = expose
        self._draining = draining
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="metrics")  # of several scrapers, one at a time

    async def healthz(self, http: web.Request) -> web.Response:
        """200 while the process lives."""
        alive: Alive = {"status": "ok"}
        return json_response(alive)

    async def readyz(self, http: web.Request) -> web.Response:
        """200 once the default model answers, and until the server drains; else 503."""
        readiness = self._readiness()
        return json_response(readiness, status=200 if readiness["status"] == "ready" else 503)

    def _readiness(self) -> Readiness:
        name = self._gateway.default_model
        state = detail = ""
        if name:
            status = self._gateway.model(name).status
            state, detail = status.state.name.lower(), status.detail
        reason = ""
        if self._draining():
            reason = "the server is draining"
        elif not self._gateway.ready():
            reason = f"`{name}` is {state}" if name else "no model is ready"
        return {
            "status": "not_ready" if reason else "ready",
            "reason": reason,
            "default_model": name,
            "state": state,
            "detail": detail,
        }

    async def metrics(self, http: web.Request) -> web.Response:
        """Prometheus text; OpenMetrics, with exemplars, where `Accept` asks for it. Rendered off the event loop.

        `?name[]=...`, given once or more, asks for the samples of these names alone, as the client's own server does.
        """
        accept, names = http.headers.get("Accept", ""), http.query.getall("name[]", [])
        encode, content_type = choose_encoder(accept)
        text = self._rendered(encode, names) if self._expose is None else self._expose(accept, names)
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def _rendered(self, encode: Encode, names: Sequence[str]) -> AsyncIterator[bytes]:
        wanted = cast("Collector", self._registry.restricted_registry(names)) if names else self._registry
        text, loop = parts(wanted, encode), asyncio.get_running_loop()
        while (part := await loop.run_in_executor(self._renderer, next, text, None)) is not None:
            yield part
