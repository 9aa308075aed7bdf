"""The composition root: everything is built here, and nowhere else are backends known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, disable_created_metrics

from polyroute.backends.local.backend import LocalBackend
from polyroute.core.backend import Backend
from polyroute.core.config import Config, LocalConfig, ModelConfig
from polyroute.routing.cache.store import AnswerStore
from polyroute.routing.gateway import Gateway
from polyroute.routing.metrics import Metrics
from polyroute.routing.registry import Snapshot
from polyroute.routing.stack import deploy
from polyroute.server.rest.app import build_rest
from polyroute.server.rpc.faces import Faces
from polyroute.server.settings import Address, Settings
from polyroute.server.tracing import Tracing
from polyroute.server.wire.codec import AnswerCodec

HTTP_BACKLOG: Final = 1024
"""Connections that may wait to be accepted; a short queue costs a burst of callers a second each."""

_LAST_WORDS_S: Final = 5.0
"""How long answers that are complete may take to reach their callers, and spans to be sent, at the end."""

log = structlog.get_logger(__name__)


class BindError(Exception):
    """An address cannot be listened on; the message names it and the flag or variable that sets it."""


class Server:
    """A whole server: three addresses over one gateway.

    `backends` stand in for those that the configuration describes, by model ID. `async with Server(...)` starts it and
    stops it at once; `drain` is for a gentle end.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str],
        backends: Mapping[str, Backend] | None = None,
    ) -> None:
        self._settings = settings
        self._tracing = Tracing(environ)
        self._registry = _registry()
        self._draining = False
        self.gateway = _gateway(settings, Metrics(self._registry), backends or {})
        self._faces = Faces(self.gateway, settings.config.limits, settings.drain_s)
        self._http: web.AppRunner | None = None
        self._stopping: asyncio.Task[None] | None = None
        self.grpc_address = settings.grpc
        self.http_address = settings.http
        self.admin_address = settings.admin

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop(0)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(0)

    async def start(self) -> None:
        """Listens on every address and begins to load models, without waiting for them; raises `BindError`.

        The addresses are then those really bound: port 0 has become a number.
        """
        self._warn()
        self.grpc_address = await _bound(self._settings.grpc, self._bind_grpc)
        self.admin_address = await _bound(self._settings.admin, self._bind_admin)
        self.http_address = await _bound(self._settings.http, self._bind_http)
        await self._faces.start()
        await self.gateway.start()
        log.info(
            "server.started", grpc=str(self.grpc_address), http=str(self.http_address), admin=str(self.admin_address)
        )

    async def drain(self, grace_s: float) -> bool:
        """Lets calls in flight finish, `grace_s` seconds at most; says whether all did.

        Health goes first, so that callers turn elsewhere; new calls are refused while those in flight go on.
        """
        self._draining = True
        self._faces.health.end()
        log.info("server.draining", grace_s=grace_s)
        done = await self.gateway.drain(grace_s)
        if done:
            await self._leave(_LAST_WORDS_S)
        return done

    async def stop(self, grace_s: float) -> None:
        """Ends what is still going on after `grace_s` seconds, and closes everything. Repeated calls wait for the first."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(grace_s))
        await asyncio.shield(self._stopping)

    async def _stop(self, grace_s: float) -> None:
        self._draining = True
        self._faces.health.end()
        await self._leave(grace_s)
        await self.gateway.close()
        await self._tracing.close(_LAST_WORDS_S)
        log.info("server.stopped")

    async def _leave(self, grace_s: float) -> None:
        """Ends every connection, once its calls are over or `grace_s` seconds have passed."""
        ending: list[Awaitable[None]] = [self._faces.stop(grace_s)]
        if self._http is not None:
            self._http.shutdown_timeout = grace_s  # type: ignore[attr-defined]
            ending.append(self._http.cleanup())
        await asyncio.gather(*ending)

    async def _bind_grpc(self, address: Address) -> int:
        return self._faces.public.add_insecure_port(str(address))

    async def _bind_admin(self, address: Address) -> int:
        return self._faces.admin.add_insecure_port(str(address))

    async def _bind_http(self, address: Address) -> int:
        app = build_rest(
            self.gateway,
            limits=self._settings.config.limits,
            registry=self._registry,
            drain=lambda: self._draining,
        )
        self._http = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._http.setup()
        await web.TCPSite(self._http, address.host, address.port, backlog=HTTP_BACKLOG, reuse_port=False).start()
        return int(self._http.addresses[0][1])

    def _warn(self) -> None:
        for address in (self._settings.grpc, self._settings.http, self._settings.admin):
            if not address.loopback:
                log.warning(
                    "server.open",
                    address=str(address),
                    meaning="everyone who reaches this address may use it: this version has no authentication",
                )
        for name in self._settings.unused:
            log.warning("settings.unused", variable=name, meaning="this version does not use it")


async def _bound(address: Address, bind: Callable[[Address], Awaitable[int]]) -> Address:
    try:
        return Address(address.host, await bind(address), address.source)
    except (OSError, RuntimeError) as error:  # gRPC raises RuntimeError, with little to say
        cause = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
        raise BindError(
            f"cannot listen on {address} ({address.source}){cause}; is another server using the port?"
        ) from error


def _registry() -> CollectorRegistry:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def _gateway(settings: Settings, metrics: Metrics, given: Mapping[str, Backend]) -> Gateway:
    config = settings.config
    store = AnswerStore(settings.cache_dir / "answers", settings.cache_bytes)
    codec = AnswerCodec()
    warm = _kept_warm(config)
    deployments = {
        model.id: deploy(
            model,
            given.get(model.id) or _backend(model, model.id in warm, settings.cache_dir, metrics),
            cache=config.cache,
            store=store,
            codec=codec,
            metrics=metrics,
        )
        for model in config.models
    }
    return Gateway(Snapshot.of(config, deployments), store, metrics)


def _kept_warm(config: Config) -> set[str]:
    """Local models to load at start: those that say so, and by default those behind the default name."""
    default = config.effective_default
    wanted = {default}
    for route in config.routes:
        if route.id == default:
            wanted |= {variant.model for variant in route.variants if variant.weight > 0}
    return {
        model.id
        for model in config.models
        if isinstance(model, LocalConfig) and (model.warm.min == 1 or (model.warm.min is None and model.id in wanted))
    }


def _backend(model: ModelConfig, warm: bool, cache_dir: Path, metrics: Metrics) -> Backend:
    if isinstance(model, LocalConfig):
        return LocalBackend(
            model, cache_dir=cache_dir, warm=warm, on_restart=lambda: metrics.worker_restarted(model.id)
        )
    raise NotImplementedError
