"""A whole server: puts its parts together, starts them, and takes them down again in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import ModuleType
from typing import Final, Self

import grpc.aio
import structlog
from aiohttp import web
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from polyroute.core.backend import Backend
from polyroute.core.config import ConsoleConfig
from polyroute.routing.departures import Departures
from polyroute.routing.experiments.reporting import Reporting
from polyroute.routing.succession import Succession
from polyroute.server.assembly import Assembly
from polyroute.server.config_watch import ConfigWatch
from polyroute.server.feedback import FeedbackIntake
from polyroute.server.part import WHOLE, Part
from polyroute.server.process_metrics import metrics_on, watch_loop
from polyroute.server.reload import Reload
from polyroute.server.rest.app import build_rest
from polyroute.server.rest.runner import RestRunner
from polyroute.server.rest.session import SessionEndpoint
from polyroute.server.rpc.admin import AdminService
from polyroute.server.rpc.boundary import Boundary
from polyroute.server.rpc.framed import Framed
from polyroute.server.rpc.health import Health
from polyroute.server.rpc.inference import InferenceService
from polyroute.server.rpc.models import ModelService
from polyroute.server.rpc.options import channel_options
from polyroute.server.rpc.reflection import add_reflection
from polyroute.server.services import Services
from polyroute.server.settings import Address, Settings, set_variables
from polyroute.server.tracing import Tracing
from polyroute.v1 import admin_pb2, admin_pb2_grpc, inference_pb2, models_pb2, models_pb2_grpc

_LAST_WORDS_S: Final = 1.0
"""How long answers that are complete may take to reach their callers once the server stops, in seconds."""
_TELEMETRY_S: Final = 3.0
"""How long a collector that does not take the last spans holds up the end, in seconds; no longer than a drain."""
_BACKLOG: Final = 4096
"""Connections that may wait to be taken up; what comes beyond them is dropped by the system, and comes again after a
second. Linux lets no more wait than `net.core.somaxconn` says."""

_INFERENCE: Final = "polyroute.v1.InferenceService"
_PUBLIC: Final = (_INFERENCE, "polyroute.v1.ModelService")
_ADMIN: Final = ("polyroute.v1.AdminService", "grpc.channelz.v1.Channelz")
_HEALTH: Final = "grpc.health.v1.Health"

log = structlog.get_logger(__name__)


class BindError(Exception):
    """An address cannot be listened on; the message names it and the flag or variable that it came from."""


class Server:
    """A whole server: `async with Server(settings)`, or `start`, then `drain`, then `stop`.

    `backends` stand in for those that the configuration would build, by model ID. After `start`, `gateway` answers
    calls, `reload` reads the configuration again, and `grpc_address`, `http_address` and `admin_address` say where it
    listens. `part` is what it has of a server whose work several processes share.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str] = os.environ,
        backends: Mapping[str, Backend] | None = None,
        part: Part = WHOLE,
    ) -> None:
        self.settings = settings
        self._part = part
        self.registry = CollectorRegistry(auto_describe=True)
        tracing = Tracing(environ)
        self.begin_trace = tracing.begin
        self._metrics = metrics = metrics_on(self.registry, part.owns)
        departures = Departures(settings.drain_s)
        assembly = Assembly(settings, metrics, departures, backends or {}, part)
        self.embedders = assembly.embedders
        self.gateway = assembly.gateway(tracing)
        self._journal = assembly.journal
        self._feedback = FeedbackIntake(self._journal)
        self._rollouts, self._allocations, self._prepare = assembly.rollouts, assembly.allocations, assembly.prepare
        succession = Succession(self.gateway, assembly.deployment, departures, assembly.adopt, assembly.prepare)
        variables = set_variables(environ)
        self.reload = Reload(settings.source, variables, settings.config, succession, metrics, part.after_reload)
        self.admin = admin = part.operator or AdminService(
            self.gateway,
            self.reload,
            settings.drain_s,
            rollouts=self._rollouts,
            reporting=None if self._journal is None else Reporting(self.gateway, self._journal),
            cache_stats=part.cache_stats,
        )
        inference = InferenceService(self.gateway, self._feedback)
        standings = tuple if self._rollouts is None else self._rollouts.standings
        self._services = Services(inference, ModelService(self.gateway, standings), admin)
        self.grpc_address, self.http_address, self.admin_address = settings.grpc, settings.http, settings.admin
        self._health = Health(self.gateway, answering=(_INFERENCE,), standing=(*_PUBLIC[1:], _HEALTH, *_ADMIN))
        self._ends = AsyncExitStack()  # what was begun last ends first
        self._ends.push_async_callback(tracing.close, min(_TELEMETRY_S, settings.drain_s))
        self._ends.push_async_callback(assembly.close)
        if self._journal is not None:
            self._ends.push_async_callback(self._journal.close)
        if self._rollouts is not None:
            self._ends.push_async_callback(self._rollouts.close)
        if self._allocations is not None:
            self._ends.push_async_callback(self._allocations.close)
        self._ends.push_async_callback(self.gateway.close)
        self._ends.push_async_callback(departures.close)
        if assembly.shadows is not None:
            self._ends.push_async_callback(assembly.shadows.close)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens on all three addresses and begins to load models, behind it.

        Raises `BindError`, or `StateUnavailable` where rollouts cannot be read: without it calls would move.
        """
        await self._prepare(self.gateway.snapshot)
        self.gateway.steer()
        if self._part.public:
            self.http_address = await self._serve_http()
            self.grpc_address = await self._serve_public()
        if self._part.admin:
            self.admin_address = await self._serve_admin()
        if self._part is WHOLE:
            tell_of(self.grpc_address, self.http_address, self.admin_address)
            self.reload.tell_of_operators()
        async with self.reload.turn:  # what is started must not be replaced meanwhile
            await self.gateway.start()
        if self._rollouts is not None:
            self._rollouts.start(self.gateway)
        if self._allocations is not None:
            self._allocations.start(self.gateway)
        self._watch()

    def _watch(self) -> None:
        lag = asyncio.create_task(watch_loop(self._metrics.loop_late), name="watch of the event loop")
        self._ends.callback(lag.cancel)
        if self.settings.source is not None and self.settings.watch:
            watch = ConfigWatch(self.settings.source, partial(self.reload.reload, "file"))
            task = asyncio.create_task(watch.run(), name="watch of the configuration")
            self._ends.callback(task.cancel)

    def ready(self) -> bool:
        """Whether the default model answers."""
        return self.gateway.ready()

    async def drain(self, grace_s: float) -> None:
        """Says that it is leaving, takes no new calls, and waits `grace_s` seconds at most for those in flight."""
        self._health.end()
        await self.reload.close()
        await self.gateway.drain(grace_s)

    async def stop(self) -> None:
        """Ends what is still running and frees everything; also after a start that failed half way."""
        await self.drain(0)
        self.gateway.cut()
        await self._ends.aclose()

    async def _serve_public(self) -> Address:
        limits = self.settings.config.limits
        server = self._grpc_server(
            channel_options(limits, max_age_s=self._part.max_age_s(limits), shared=self._part.shared)
        )
        self._services.inference.add_to(server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(self._services.models, server)
        add_reflection(server, (*_PUBLIC, _HEALTH), _files(inference_pb2, models_pb2, health_pb2, error_details_pb2))
        return await self._listen(server, self.settings.grpc)

    async def _serve_admin(self) -> Address:
        server = self._grpc_server(channel_options(self.settings.config.limits))
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self._services.admin, server)
        channelz.add_channelz_servicer(server)
        add_reflection(server, (*_ADMIN, _HEALTH), _files(admin_pb2, channelz_pb2, health_pb2, error_details_pb2))
        return await self._listen(server, self.settings.admin)

    def _console(self) -> ConsoleConfig:
        return self.reload.config.console

    def _grpc_server(self, options: list[tuple[str, int]]) -> grpc.aio.Server:
        server = Framed(grpc.aio.server(options=options), Boundary(self.gateway.refused))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    async def _listen(self, server: grpc.aio.Server, address: Address) -> Address:
        self._ends.push_async_callback(server.stop, _LAST_WORDS_S)
        try:
            port = server.add_insecure_port(str(address))
        except RuntimeError as error:
            raise BindError(taken(address, "")) from error
        await server.start()
        return Address(address.host, port, address.source)

    async def _serve_http(self) -> Address:
        app = build_rest(
            self.gateway,
            registry=self.registry,
            feedback=self._feedback,
            drain=lambda: self.gateway.draining,
            offers=self._services.offers(self._console),
            session=SessionEndpoint(
                self._console, lambda: self.grpc_address.port, experiments=self._journal is not None
            ),
            max_age_s=self._part.max_age_s(self.settings.config.limits),
            expose=self._part.expose,
        )
        runner = RestRunner(app, shutdown_timeout=_LAST_WORDS_S)
        await runner.setup()
        self._ends.push_async_callback(runner.cleanup)
        address = self.settings.http
        try:
            shared = self._part.shared or None
            await web.TCPSite(runner, address.host, address.port, backlog=_BACKLOG, reuse_port=shared).start()
        except OSError as error:
            raise BindError(taken(address, f": {error.strerror}" if error.strerror else "")) from error
        return Address(address.host, int(runner.addresses[0][1]), address.source)


def tell_of(grpc: Address, http: Address, admin: Address) -> None:
    """Tells where the server listens, and of the addresses that others than this machine reach."""
    log.info("server.listening", grpc=str(grpc), http=str(http), admin=str(admin))
    for address in (grpc, http, admin):
        if not address.loopback:
            log.warning("server.open", address=str(address), risk="anyone who reaches it may use it: there is no auth")


def taken(address: Address, why: str) -> str:
    """What is wrong where an address cannot be listened on."""
    return f"cannot listen on {address}{why or ': the address is in use or not of this machine'} ({address.source})"


def _files(*modules: ModuleType) -> Iterable[FileDescriptor]:
    return [module.DESCRIPTOR for module in modules]
