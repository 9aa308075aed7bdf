"""The home: the process that keeps the fronts, and has what they share: local models, permits, the operator's calls."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import Final

import structlog
from prometheus_client.exposition import choose_encoder

from polyroute.core import telemetry
from polyroute.core.errors import PolyrouteError
from polyroute.routing.gateway import Gateway
from polyroute.routing.lending import Lending
from polyroute.routing.metrics.instruments import counter, gauge
from polyroute.routing.permits import Permits
from polyroute.routing.views import CacheStats
from polyroute.server.app import BindError, Server, tell_of
from polyroute.server.fronts.cache_stats import merged_stats
from polyroute.server.fronts.front_link import FrontLink, Rooms
from polyroute.server.fronts.merging import Exposition, counted, merged, told
from polyroute.server.fronts.messages.exposing import Counts, Family
from polyroute.server.fronts.messages.frames import ToHome
from polyroute.server.fronts.messages.life import Begin, CannotServe, Drain, Listening, Opened
from polyroute.server.fronts.ports import Port
from polyroute.server.fronts.process import FrontProcess
from polyroute.server.fronts.standing import Standings
from polyroute.server.part import Part
from polyroute.server.reload import Reload
from polyroute.server.rest.exposition import parts
from polyroute.server.settings import Address, Settings

_TELL_S: Final = 0.25
"""How often fronts are told what has changed in the others, in seconds."""
_LOOK_S: Final = 1.0  # how often it is looked whether they live
_RESTART_S: Final = (0.1, 30.0)  # first and longest wait before a front that died is replaced; doubles between
_STEADY_S: Final = 60.0  # one that lived this long died of something new
_COLLECT_S: Final = 5.0  # how long a front that does not answer keeps a scrape waiting
_APPLY_S: Final = 60.0  # and a reload
_LAST_S: Final = 10.0  # and the end, beyond the drain

log = structlog.get_logger(__name__)


class _Front:
    """One of the fronts: its process of now, and what it was asked."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: FrontProcess | None = None
        self.link: FrontLink | None = None
        self.listening = False
        self.refusal = ""
        self.families: list[Family] = []
        self.counts: list[Family] = []


class Home:
    """A server of several processes, with the face of `polyroute.server.app.Server` to whoever runs it.

    `turns` is as of `polyroute.server.logs.set_up`.
    """

    def __init__(self, settings: Settings, turns: int, *, environ: Mapping[str, str] = os.environ) -> None:
        self.settings = settings
        self._server = Server(
            settings,
            environ=environ,
            part=Part(
                public=False,
                owns=lambda model: model.type == "local",
                cache_stats=self._cache_stats,
                after_reload=self._apply,
            ),
        )
        registry = self._server.registry
        gauge(telemetry.ROUTER_PROCESSES, registry).set_function(lambda: len(self._listening()))
        self._restarts = counter(telemetry.ROUTER_RESTARTS, registry)
        self._lending = Lending(self._permits)
        self._rooms = Rooms(
            self.gateway,
            self._lending,
            self._server.begin_trace,
            self._server.embedders.embed,
            self._expose,
            self._server.admin,
        )
        self._standings = Standings(self.gateway)
        self._fronts = [_Front(number) for number in range(settings.workers)]
        self._content = b"" if settings.source is None else settings.source.content
        self._past: list[Family] = []  # counts of fronts that are gone, as they were last collected
        self._turns = turns
        self._ports: list[Port] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._leaving = False
        self.grpc_address, self.http_address, self.admin_address = settings.grpc, settings.http, settings.admin

    @property
    def gateway(self) -> Gateway:
        """The home's own router, which the operator's calls act on."""
        return self._server.gateway

    @property
    def reload(self) -> Reload:
        """Reads the configuration again, for all processes."""
        return self._server.reload

    def ready(self) -> bool:
        """Whether the default model answers, by every front."""
        return self.gateway.ready() and len(self._listening()) == len(self._fronts)

    async def start(self) -> None:
        """Takes the ports, begins to load models and starts the fronts; returns once all of them listen.

        Raises `BindError`, with what a front said where it cannot begin, or `StateUnavailable`.
        """
        self.grpc_address, self.http_address = self._port(self.settings.grpc), self._port(self.settings.http)
        await self._server.start()
        self.admin_address = self._server.admin_address
        self._tasks = [
            asyncio.create_task(self._keep(front), name=f"router process {front.number}") for front in self._fronts
        ]
        self._tasks.append(asyncio.create_task(self._tell(), name="standing of all processes"))
        self._tasks.append(asyncio.create_task(self._watch(), name="watch over all processes"))
        while len(self._listening()) < len(self._fronts):
            refusal = next((front.refusal for front in self._fronts if front.refusal), "")
            if refusal:
                raise BindError(refusal)
            await self._news.wait()
            self._news.clear()
        tell_of(self.grpc_address, self.http_address, self.admin_address)
        self.reload.tell_of_operators()

    async def drain(self, grace_s: float) -> None:
        """Has every front take no new calls and wait `grace_s` seconds at most for those in flight, and end."""
        self._leaving = True
        await self.reload.close()
        for front in self._fronts:
            if front.process is not None:
                front.process.send(Drain(grace_s))
        # One that does not listen has no calls that were to finish, and may never come to it.
        if waiting := [task for front, task in zip(self._fronts, self._tasks, strict=False) if front.listening]:
            await asyncio.wait(waiting, timeout=grace_s + _LAST_S)

    async def stop(self) -> None:
        """Ends every front, then what they share; also after a start that failed half way."""
        await self.drain(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.stop()
        for port in self._ports:
            port.close()

    def _port(self, address: Address) -> Address:
        port = Port(address)
        self._ports.append(port)
        return port.address

    def _permits(self, name: str) -> Permits:
        permits = self.gateway.snapshot.deployment(name).permits
        assert isinstance(permits, Permits)  # noqa: S101 - the home lends its own
        return permits

    def _listening(self) -> list[_Front]:
        return [front for front in self._fronts if front.listening]

    async def _keep(self, front: _Front) -> None:
        """Runs one front after the other, until the server leaves."""
        deaths = 0
        while not self._leaving:
            begun = time.monotonic()
            try:
                ending = await self._live(front)
            except Exception:  # our bug, which must not leave the server with a front fewer for good
                log.exception("front.lost", process=front.number)
                ending = "what it told was not understood"
            if self._leaving:
                return
            deaths = 1 if time.monotonic() - begun > _STEADY_S else deaths + 1
            wait_s = min(_RESTART_S[1], _RESTART_S[0] * 2.0 ** min(deaths - 1, 32))
            log.error("front.died", process=front.number, ending=ending, restart_in_s=wait_s)
            self._restarts.inc()
            await asyncio.sleep(wait_s)

    async def _live(self, front: _Front) -> str:
        """One process from start to end; returns how it ended."""
        try:
            process = await FrontProcess.spawn(self._turns)
        except OSError as error:
            return f"it cannot be started: {error}"
        link = FrontLink(self._rooms, process.send, process.drained)
        front.process, front.link, front.refusal = process, link, ""
        try:
            if self._leaving:
                return "the server leaves"
            process.send(self._standings.everything())
            process.send(self._begin(front.number))
            ending = await process.run(lambda message: self._receive(front, message))
            return f"it could not serve: {front.refusal}" if front.refusal else ending
        finally:
            front.process, front.link, front.listening = None, None, False
            self._past = merged(self._past, [front.counts])
            front.families, front.counts = [], []
            await process.kill()
            await link.end()
            self._news.set()

    def _begin(self, number: int) -> Begin:
        settings, grpc, http, admin = self.settings, self.grpc_address, self.http_address, self.admin_address
        return Begin(
            number=number,
            grpc=(grpc.host, grpc.port),
            http=(http.host, http.port),
            admin=(admin.host, admin.port),
            cache_dir=str(settings.cache_dir),
            cache_bytes=settings.cache_bytes,
            drain_s=settings.drain_s,
            redis_url=None if settings.redis_url is None else settings.redis_url.get_secret_value(),
            state_url=settings.state_url,
            log_format=settings.log_format,
            log_level=settings.log_level,
            file="" if settings.source is None else str(settings.source.path),
            content=self._content,
            model=settings.config.models[0].id,
        )

    def _receive(self, front: _Front, message: ToHome) -> None:
        if front.link is not None and front.link.receive(message):
            return
        match message:
            case Listening():
                front.listening = True
                log.info("front.listening", process=front.number, pid=front.process.pid if front.process else 0)
            case CannotServe():
                front.refusal = message.why
            case Counts():
                front.counts = message.families
            case Opened():
                for other in self._fronts:
                    if other is not front and other.process is not None:
                        other.process.send(message)
        self._news.set()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_TELL_S)
            told = [(front.link, front.process) for front in self._fronts if front.link and front.process]
            news = self._standings.news([link for link, _ in told])
            for stand, (_, process) in zip(news, told, strict=False):  # no news, or one for each
                process.send(stand)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for front in self._fronts:
                if front.process is not None:
                    front.process.look(_LOOK_S, listening=front.listening)

    async def _apply(self) -> None:
        """Has the fronts follow to the configuration that is in force here; one that does not is replaced."""
        assert self.settings.source is not None  # noqa: S101 - else there is nothing to reload
        self._content = self.settings.source.content
        await self._lending.recall_all()  # limits may be smaller
        await asyncio.gather(*(self._apply_to(front) for front in self._fronts))

    async def _apply_to(self, front: _Front) -> None:
        link, process = front.link, front.process
        if link is None or process is None:
            return  # it begins with the new one
        process.send(self._standings.everything())
        try:
            trouble = await asyncio.wait_for(link.apply(self._content), _APPLY_S)
        except (TimeoutError, PolyrouteError) as error:
            trouble = str(error) or f"no answer in {_APPLY_S:g} s"
        if trouble:
            log.error("front.not_reloaded", process=front.number, why=trouble, effect="it is replaced")
            await process.kill()

    async def _cache_stats(self, model: str) -> CacheStats:
        own = await self.gateway.cache_stats(model)
        links = [front.link for front in self._listening() if front.link is not None]
        asked = [asyncio.wait_for(link.cache_stats(model), _COLLECT_S) for link in links]
        of_fronts = await asyncio.gather(*asked, return_exceptions=True)
        for missing in of_fronts:
            if isinstance(missing, BaseException):
                log.warning("front.not_counted", what="cache", why=str(missing) or type(missing).__name__)
        return merged_stats(own, [stats for stats in of_fronts if isinstance(stats, CacheStats)])

    async def _expose(self, accept: str, names: Sequence[str]) -> AsyncGenerator[bytes, None]:
        encode, _ = choose_encoder(accept)
        await asyncio.gather(*(self._collect(front) for front in self._listening()))
        fronts = [self._past, *(front.families for front in self._fronts)]
        own = await asyncio.to_thread(told, self._server.registry)
        text = parts(Exposition(await asyncio.to_thread(merged, own, fronts, names)), encode)
        while (part := await asyncio.to_thread(next, text, None)) is not None:
            yield part

    async def _collect(self, front: _Front) -> None:
        """Takes what a front tells; one that does not answer counts as it last did."""
        if (link := front.link) is not None:
            with suppress(TimeoutError, PolyrouteError):
                families = await asyncio.wait_for(link.collect(), _COLLECT_S)
                if front.link is link:
                    front.families, front.counts = families, counted(families)
