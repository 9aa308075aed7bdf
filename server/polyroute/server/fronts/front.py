"""A front process: a whole router on the public ports, but for what all fronts share, which the home has."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import SecretStr

from polyroute.core.backend import Heeding
from polyroute.core.config import Config
from polyroute.core.config_file import ConfigError, usable_config
from polyroute.core.errors import PolyrouteError, StateUnavailable
from polyroute.server import logs
from polyroute.server.app import BindError, Server
from polyroute.server.cli import unburden
from polyroute.server.fronts.failures import failed
from polyroute.server.fronts.home_link import HomeLink
from polyroute.server.fronts.link import Link
from polyroute.server.fronts.local_model import HomeEmbedder, LocalModel
from polyroute.server.fronts.merging import counted, told
from polyroute.server.fronts.messages.exposing import CacheTold, Collect, Collected, Counts, TellCache
from polyroute.server.fronts.messages.frames import ToFront, to_front_decoder
from polyroute.server.fronts.messages.life import Alive, Applied, Apply, Begin, CannotServe, Drain, Listening, Opened
from polyroute.server.fronts.operator import home_operator
from polyroute.server.logs.writer import LogWriter
from polyroute.server.part import Part
from polyroute.server.settings import Address, Settings, set_variables, single_model

_TELL_S: Final = 0.25
"""How often the home is told what has changed of the permits here, in seconds."""
_ALIVE_S: Final = 1.0
"""How often it is told that this process is there, in seconds."""
_COUNTS_S: Final = 1.0
_COUNTS_SHARE: Final = 0.01
"""How often it is told what was counted here, in seconds; or more seldom, where that would take more of the time."""

log = structlog.get_logger(__name__)


class Front:
    """Serves as the home at the other end of `link` says; `turns` is as of `polyroute.server.logs.set_up`."""

    def __init__(self, link: Link[ToFront], turns: int) -> None:
        self._link = link
        self._turns = turns
        self._home = HomeLink(link.send)
        self._environ: Mapping[str, str] = os.environ
        self._file = ""
        self._logs: LogWriter | None = None
        self._server: Server | None = None
        self._draining: asyncio.Task[None] | None = None
        self._drain_s = 0.0
        self._counting = asyncio.Lock()
        """Held from counting until that is sent, or an earlier count could arrive as the later one."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()

    @classmethod
    async def serve(cls, end: socket.socket, turns: int) -> int:
        """Serves until the home says otherwise, or is gone; returns the exit code."""
        front = cls(await Link.over(end, to_front_decoder), turns)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGHUP):  # which a terminal sends to all; the home answers them
            loop.add_signal_handler(number, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, front._leave)
        return await front._run()

    async def _run(self) -> int:
        reading = asyncio.create_task(self._link.run(self._receive), name="messages of the home")
        over = asyncio.create_task(self._over.wait(), name="end of the front")
        await asyncio.wait({reading, over}, return_when=asyncio.FIRST_COMPLETED)
        orphaned = not self._over.is_set()
        if orphaned:
            self._home.lose()
            if (error := reading.exception()) is not None:  # our bug
                log.error("front.failed", exc_info=error)
            log.error("front.orphaned", effect="it ends: permits and local models are the home's")
        for task in (reading, over, *self._tasks):
            task.cancel()
        await asyncio.gather(reading, over, *self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.stop()
            if not orphaned:
                await self._tell_counts(self._server)
        self._link.close()
        if self._logs is not None:
            self._logs.close()
        return int(orphaned)

    def _receive(self, message: ToFront) -> None:
        if self._home.receive(message):
            return
        match message:
            case Begin():
                self._do(self._begin(message))
            case Apply():
                self._do(self._apply(message))
            case Collect():
                self._do(self._collect(message))
            case TellCache():
                self._do(self._tell_cache(message))
            case Opened():
                self._heed(message)
            case Drain():
                self._drain_for(message.grace_s)
            case _:
                log.error("front.not_understood", message=type(message).__name__)

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # our bug
            log.error("front.failed", exc_info=error)
            self._over.set()

    async def _begin(self, begin: Begin) -> None:
        self._logs = logs.set_up(
            format=begin.log_format, level=begin.log_level, turns=self._turns, process=begin.number
        )
        self._file, self._drain_s = begin.file, begin.drain_s
        try:
            settings = self._settings(begin)
        except ConfigError as error:  # the home could use it a moment ago: a secret's file is gone
            self._refuse(str(error))
            return
        server = Server(settings, environ=self._environ, part=self._part())
        self._server = server
        try:
            await server.start()
        except (BindError, StateUnavailable) as error:
            self._refuse(str(error))
            return
        unburden()
        self._link.send(Listening())
        self._do(self._tell_alive())
        self._do(self._keep_counts(server))
        while True:
            await asyncio.sleep(_TELL_S)
            self._home.tell_busy()

    async def _tell_alive(self) -> None:
        while True:
            await asyncio.sleep(_ALIVE_S)
            self._link.send(Alive())

    async def _keep_counts(self, server: Server) -> None:
        """Should this process crash, the home has what was counted a moment ago."""
        wait_s = _COUNTS_S
        while True:
            await asyncio.sleep(wait_s)
            begun = time.monotonic()
            await self._tell_counts(server)
            wait_s = max(_COUNTS_S, (time.monotonic() - begun) / _COUNTS_SHARE)

    async def _tell_counts(self, server: Server) -> None:
        async with self._counting:
            self._link.send(Counts(await asyncio.to_thread(lambda: counted(told(server.registry)))))
        await self._link.drained()

    def _refuse(self, why: str) -> None:
        self._link.send(CannotServe(why))
        self._over.set()

    def _part(self) -> Part:
        home = self._home
        return Part(
            admin=False,
            shared=True,
            local=lambda config: LocalModel(config, home),
            embedder=lambda source: HomeEmbedder(source, home),
            permits_for=home.permits_for,
            owns=lambda model: model.type != "local",
            expose=home.scrape,
            operator=home_operator(home),
            opened=self._opened,
        )

    def _settings(self, begin: Begin) -> Settings:
        config = self._read(begin.content) if begin.content else single_model(begin.model, self._given)
        return Settings(
            config=config,
            grpc=Address(*begin.grpc),
            http=Address(*begin.http),
            admin=Address(*begin.admin),
            cache_dir=Path(begin.cache_dir),
            cache_bytes=begin.cache_bytes,
            drain_s=begin.drain_s,
            redis_url=None if begin.redis_url is None else SecretStr(begin.redis_url),
            watch=False,
            state_url=begin.state_url,
        )

    @property
    def _given(self) -> dict[str, str]:
        return set_variables(self._environ)

    def _read(self, content: bytes) -> Config:
        return usable_config(content, self._file, self._given)

    async def _apply(self, apply: Apply) -> None:
        """Follows the home to another configuration, while calls go on."""
        server, begun = self._server, time.monotonic()
        if server is None:
            self._link.send(Applied(apply.id, "it has not begun"))
            return
        try:
            config = await asyncio.to_thread(self._read, apply.content)
            await server.reload.follow(config)
        except (ConfigError, PolyrouteError) as error:
            self._link.send(Applied(apply.id, str(error)))
        except Exception as error:
            log.exception("front.not_applied")
            self._link.send(Applied(apply.id, type(error).__name__))
        else:
            log.debug("front.applied", took_s=round(time.monotonic() - begun, 3))
            self._link.send(Applied(apply.id))

    def _heed(self, opened: Opened) -> None:
        """Another front has found a replica ill."""
        found = None if self._server is None else self._server.gateway.snapshot.deployments.get(opened.model)
        if found is not None and isinstance(found.backend, Heeding):
            found.backend.heed(opened.replica, opened.open_for_s, opened.why)

    def _opened(self, model: str, replica: str, open_for_s: float, why: str) -> None:
        self._link.send(Opened(model, replica, open_for_s, why))

    async def _collect(self, collect: Collect) -> None:
        async with self._counting:
            families = [] if self._server is None else await asyncio.to_thread(told, self._server.registry)
            self._link.send(Collected(collect.id, families))
        await self._link.drained()

    async def _tell_cache(self, asked: TellCache) -> None:
        try:
            if self._server is None:
                raise StateUnavailable("the router process has not begun")
            self._link.send(CacheTold(asked.id, await self._server.gateway.cache_stats(asked.model)))
        except PolyrouteError as error:
            self._link.send(failed(asked.id, error))

    def _leave(self) -> None:
        """SIGTERM to this process alone: it drains, and the home begins another."""
        self._drain_for(self._drain_s)

    def _drain_for(self, grace_s: float) -> None:
        if self._draining is not None:
            self._draining.cancel()
        self._draining = self._do(self._drain(grace_s))
        self._draining.add_done_callback(partial(_unless_cancelled, self._over))

    async def _drain(self, grace_s: float) -> None:
        if self._server is not None:
            await self._server.drain(grace_s)


def _unless_cancelled(over: asyncio.Event, task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        over.set()
