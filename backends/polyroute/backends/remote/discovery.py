"""Replicas behind one name: each of its addresses is one, and they follow the name as it changes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog

from polyroute.backends.remote.backend import RemoteBackend
from polyroute.backends.remote.names import DNS_SCHEME, Resolve
from polyroute.backends.remote.turns import Turns
from polyroute.core.backend import Backend
from polyroute.core.config import ModelConfig, RemoteConfig

DRAIN_S: Final = 300.0
"""How long the calls of a replica may go on once its address has left the name, in seconds."""
MOST_ADDRESSES: Final = 256
"""Most replicas of one name; further addresses are not used, and the log says so."""
FAILED_WAIT_S: Final = 5.0
"""Longest wait before a name that could not be resolved is asked for again."""

_log = structlog.get_logger(__name__)


class Members(Protocol):
    """What replicas join and leave: a `polyroute.backends.pool.Pool`."""

    def add(self, replica: Backend) -> None:
        """Takes one in."""

    async def remove(self, replica: Backend, grace_s: float) -> None:
        """Lets its calls end, and stops it."""


class Discovery:
    """The replicas at a `dns+http://name:port` of `config`. Implements `polyroute.backends.pool.Source`.

    The name is resolved again about every `resolve_interval`. Addresses that are new join, those that are gone drain;
    a name that cannot be resolved, or has no address, leaves everything as it was last. `turns` are the replicas'.
    """

    def __init__(
        self,
        config: RemoteConfig,
        base_url: str,
        *,
        resolve: Resolve,
        turns: Turns | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._config = config
        self._url = base_url.removeprefix(DNS_SCHEME)
        parts = urlsplit(self._url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._resolve = resolve
        self._turns = turns
        self._sleep = sleep
        self.problem = ""
        """Why the addresses are not known, in words; empty where they are."""
        self._members: dict[str, RemoteBackend] = {}
        self._settled = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._departures: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Discovery {self._url} {sorted(self._members)}>"

    async def start(self, pool: Members) -> None:
        """Begins to resolve, in the background, until `stop`."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._run(pool), name=f"discovery of {self._url}")

    async def settled(self) -> None:
        """Returns once the name was resolved for the first time, or could not be, or `stop` was called."""
        await self._settled.wait()

    async def stop(self) -> None:
        """Ends what runs in the background."""
        tasks = [*self._departures, *([] if self._loop is None else [self._loop])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def adopt(self, config: ModelConfig) -> None:
        """Takes on the interval, from the next time on, and what replicas to come are made with."""
        if isinstance(config, RemoteConfig):
            self._config = config

    async def _run(self, pool: Members) -> None:
        try:
            while True:
                wait_s = await self._look(pool)
                self._settled.set()
                await self._sleep(wait_s * random.uniform(0.8, 1.2))  # noqa: S311
        finally:
            self._settled.set()

    async def _look(self, pool: Members) -> float:
        """Resolves the name and follows it; the seconds until that is done again."""
        wait_s = self._config.resolve_interval
        try:
            addresses = await self._resolve(self._host, self._port)
            self.problem = "" if addresses else f"`{self._config.id}`: `{self._host}` has no address"
            await self._follow(addresses, pool)
        except (OSError, UnicodeError) as error:  # UnicodeError: what no name can be, such as a label of 64 letters
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self.problem = f"`{self._config.id}`: `{self._host}` cannot be resolved: {why}"
            _log.warning("discovery.failed", name=self._host, error=str(error), kept=len(self._members))
        except Exception as error:  # noqa: BLE001 - our bug; the name is followed all the same
            self.problem = f"`{self._config.id}`: `{self._host}` cannot be followed: {type(error).__name__}: {error}"
            _log.exception("discovery.broken", name=self._host, kept=len(self._members))
        else:
            return wait_s
        return min(wait_s, FAILED_WAIT_S)

    async def _follow(self, addresses: list[str], pool: Members) -> None:
        if not addresses:
            _log.warning("discovery.empty", name=self._host, kept=len(self._members))
            return
        if len(addresses) > MOST_ADDRESSES:
            _log.warning("discovery.cut", name=self._host, addresses=len(addresses), limit=MOST_ADDRESSES)
        wanted = sorted(addresses)[
            :MOST_ADDRESSES
        ]  # sorted, or servers that rotate them would have others cut each time
        for address in wanted:
            if address not in self._members:
                await self._join(address, pool)
        for address in self._members.keys() - set(wanted):
            self._leave(address, pool)

    async def _join(self, address: str, pool: Members) -> None:
        replica = RemoteBackend(self._config, self._url, address, turns=self._turns)
        try:
            pool.add(replica)
        except ValueError as error:
            _log.warning("discovery.refused", name=self._host, address=address, reason=str(error))
            return
        self._members[address] = replica
        await replica.start()
        _log.info("discovery.joined", name=self._host, address=address)

    def _leave(self, address: str, pool: Members) -> None:
        replica = self._members.pop(address)
        departure = asyncio.create_task(pool.remove(replica, DRAIN_S), name=f"departure of {replica!r}")
        self._departures.add(departure)
        departure.add_done_callback(self._departures.discard)
        _log.info("discovery.left", name=self._host, address=address)
