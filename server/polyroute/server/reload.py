"""Reads the configuration again while the server runs, and puts it in force if it can be used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import structlog

from polyroute.core.config import Config, LimitsConfig
from polyroute.core.config_file import ConfigError, Problem
from polyroute.core.errors import Draining, PolyrouteError, Unimplemented
from polyroute.routing.metrics import Metrics
from polyroute.routing.succession import Changes, Succession
from polyroute.server.config_source import ConfigSource
from polyroute.server.rpc.options import receive_bytes

Trigger: TypeAlias = Literal["SIGHUP", "file", "call"]

_LOGGED: Final = 100
"""Most problems of one file that the log tells, and most IDs of models of one kind of change."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did: `changes`, or `problems` with which nothing was changed.

    `digest` is that of the configuration now in force. `needs_restart` names keys of the file whose change takes effect
    when the server is started the next time.
    """

    digest: str
    changed: bool
    changes: Changes
    needs_restart: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class LastReload:
    """How a reload went that was over `at`, in Unix time: what was `done`, or the `error` that kept it from that."""

    at: float
    trigger: Trigger
    done: Reloaded | None = None
    error: str = ""


class Reload:
    """Reloads the configuration of one server, which began with `config` from `source`.

    `after` is awaited once a configuration is in force here: other processes may have to follow. One reload at a time;
    whoever asks while one is running shares the next one, which reads what stands there then.
    """

    def __init__(
        self,
        source: ConfigSource | None,
        environ: Mapping[str, str],
        config: Config,
        succession: Succession,
        metrics: Metrics,
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.source = source
        self._after = after
        self._environ = environ
        self._first = config.limits
        self._config = config
        self._digest = config.digest
        self._succession = succession
        self._metrics = metrics
        self.turn = asyncio.Lock()
        """Held by the reload that is going on; whoever else holds it keeps reloads waiting."""
        self._waiting: asyncio.Task[Reloaded] | None = None
        self._running: set[asyncio.Task[Reloaded]] = set()
        self._closed = False
        self.last: LastReload | None = None
        """How the last reload went, whether it changed anything or not; None before the first."""
        self.since = time.time()
        """When the configuration in force came into force, in Unix time."""
        metrics.config_loaded(self._digest, self.since)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    @property
    def digest(self) -> str:
        """The digest of the configuration in force."""
        return self._digest

    def tell_of_operators(self) -> None:
        """Warns where the configuration in force lets everybody operate the server who reaches its HTTP address."""
        if self._config.console.operate == "all":
            log.warning(
                "console.open", risk="whoever reaches the HTTP address may operate it: `console.operate` is `all`"
            )

    async def check(self) -> Reloaded:
        """What is wrong with the file, or what it would change; nothing changes. Raises `Unimplemented` without one."""
        try:
            config = await asyncio.to_thread(self._file().check, self._environ)
        except ConfigError as error:
            return self._rejected(error)
        changes = await self._succession.preview(config)
        return Reloaded(self._digest, False, changes, _needs_restart(self._first, config.limits))

    async def reload(self, trigger: Trigger) -> Reloaded:
        """Reads the file and puts it in force. Raises `Unimplemented` without a file, `Draining` when leaving."""
        self._file()
        if self._closed:
            raise Draining("the server is shutting down")
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._in_turn(trigger), name=f"reload by {trigger}")
            self._running.add(self._waiting)
            self._waiting.add_done_callback(self._over)
        task = self._waiting
        await asyncio.wait({task})  # unlike awaiting the task, being cancelled here leaves it to the others
        if task.cancelled():
            raise Draining("the server is shutting down")
        return task.result()

    async def follow(self, config: Config) -> None:
        """Puts a configuration in force that another process of this server has read; raises what stands in the way."""
        digest = await asyncio.to_thread(lambda: config.digest)
        async with self.turn:
            await self._enforce(config, digest)
        self._metrics.config_loaded(digest, self.since)

    async def close(self) -> None:
        """Ends the reload that is going on, if it is not in force yet."""
        self._closed = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _over(self, task: asyncio.Task[Reloaded]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may have left

    def _file(self) -> ConfigSource:
        if self.source is None:
            raise Unimplemented("there is nothing to reload: this server was started without a models.yaml (--config)")
        return self.source

    async def _in_turn(self, trigger: Trigger) -> Reloaded:
        async with self.turn:
            self._waiting = None  # who asks from now on may know of a newer file
            begun = time.monotonic()
            try:
                done = await self._once()
            except Exception as error:
                self._metrics.config_reloaded("failed")
                said = error.message if isinstance(error, PolyrouteError) else "the server's log has the error"
                self.last = LastReload(time.time(), trigger, error=said)
                log.exception("config.reload_failed", trigger=trigger, effect="the configuration in force stays")
                raise
            self.last = LastReload(time.time(), trigger, done)
            _tell(done, trigger, self._file(), time.monotonic() - begun)
            self._metrics.config_reloaded("rejected" if done.problems else "changed" if done.changed else "unchanged")
            return done

    async def _once(self) -> Reloaded:
        try:
            config, digest, changed = await asyncio.to_thread(self._read)
        except ConfigError as error:
            return self._rejected(error)
        changes, before = Changes(), self._config.console
        if changed:
            changes = await self._enforce(config, digest)
            if self._after is not None:
                await self._after()
            if config.console != before:
                self.tell_of_operators()
        self._metrics.config_loaded(digest, time.time())
        return Reloaded(digest, changed, changes, _needs_restart(self._first, config.limits))

    async def _enforce(self, config: Config, digest: str) -> Changes:
        changes = await self._succession.to(config)
        self._config, self._digest, self.since = config, digest, time.time()
        return changes

    def _read(self) -> tuple[Config, str, bool]:
        """The configuration that stands in the file, its digest, and whether it is another one."""
        config = self._file().read(self._environ)
        return config, config.digest, config != self._config

    def _rejected(self, error: ConfigError) -> Reloaded:
        return Reloaded(self._digest, False, Changes(), problems=tuple(error.problems))


def _needs_restart(first: LimitsConfig, now: LimitsConfig) -> tuple[str, ...]:
    """What gRPC takes in one message, and how old connections get, is settled when the servers start."""
    size = ("limits.max_prompt_bytes",) if receive_bytes(now) > receive_bytes(first) else ()
    age = ("limits.max_connection_age",) if now.max_connection_age != first.max_connection_age else ()
    return (*size, *age)


def _tell(done: Reloaded, trigger: Trigger, source: ConfigSource, took_s: float) -> None:
    file, took_s = str(source.path), round(took_s, 3)
    if done.problems:
        for problem in done.problems[:_LOGGED]:
            log.error("config.problem", problem=str(problem))
        count = len(done.problems)
        log.error("config.rejected", trigger=trigger, file=file, problems=count, effect="nothing has changed")
        return
    if not done.changed:
        log.info("config.unchanged", trigger=trigger, file=file, hash=done.digest, took_s=took_s)
        return
    changes = done.changes
    log.info(
        "config.reloaded",
        trigger=trigger,
        file=file,
        hash=done.digest,
        added=changes.added[:_LOGGED],
        removed=changes.removed[:_LOGGED],
        rebuilt=changes.rebuilt[:_LOGGED],
        adjusted=changes.adjusted[:_LOGGED],
        took_s=took_s,
    )
    for key in done.needs_restart:
        log.warning("config.needs_restart", key=key, effect="in part when the server is started the next time")
