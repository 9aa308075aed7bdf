"""The composition root of models: builds each one's backend, and the layers around it, out of its configuration."""

from __future__ import annotations

import random
import secrets
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from polyroute.backends.local.backend import LocalBackend
from polyroute.backends.local.cores import Cores
from polyroute.backends.local.embedder import LocalEmbedder
from polyroute.backends.local.machine import visible_gpus
from polyroute.backends.local.memory import Memory
from polyroute.backends.local.warm import WarmPool
from polyroute.backends.pool import Pool, Surroundings
from polyroute.backends.remote.backend import RemoteBackend
from polyroute.backends.remote.discovery import Discovery
from polyroute.backends.remote.lists import Lists
from polyroute.backends.remote.names import DNS_SCHEME, Names
from polyroute.backends.remote.turns import Turns
from polyroute.core.backend import Backend
from polyroute.core.config import Config, LocalConfig, ModelConfig, RemoteConfig
from polyroute.core.errors import StateUnavailable
from polyroute.routing.departures import Departures
from polyroute.routing.experiments.adaptive.allocations import Allocations
from polyroute.routing.experiments.database import Database
from polyroute.routing.experiments.journal import Journal
from polyroute.routing.experiments.records import Recorders
from polyroute.routing.experiments.rollout.rollouts import Rollouts
from polyroute.routing.experiments.shadow.shadows import Shadows
from polyroute.routing.gateway import Gateway
from polyroute.routing.metrics import Metrics
from polyroute.routing.registry import Deployment, Snapshot
from polyroute.routing.stack import deploy
from polyroute.routing.views import MemoryView
from polyroute.server.cache_tiers import resize, tiers_of
from polyroute.server.embedders import Embedders
from polyroute.server.part import WHOLE, Part
from polyroute.server.settings import Settings
from polyroute.server.tracing import Tracing

_PROBES: Final = (256, 50.0)
"""Peers that are asked at once how they are, and a second afterwards: of thousands, each is asked more seldom."""


class Assembly:
    """Puts deployments together out of what they share: at the start, and at each reload.

    `stand_ins` take the place of the backends that would be built, by model ID.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        departures: Departures,
        stand_ins: Mapping[str, Backend],
        part: Part = WHOLE,
    ) -> None:
        self._settings = settings
        self._part = part
        self._metrics = metrics
        self._departures = departures
        self._stand_ins = stand_ins
        self._gateway: Gateway | None = None
        self._cores = Cores()
        self._chance = random.Random()  # noqa: S311 - one for all: each takes 2.5 KB
        self._memory = memory = Memory(settings.config.memory_budget, gpus=visible_gpus())
        self._turns = Turns(*_PROBES)
        self._lists = Lists()
        self._names = Names()
        self._answers = tiers_of(settings)
        self.embedders = Embedders(part.embedder or LocalEmbedder)
        database = None if settings.state_url is None else Database(settings.state_url)
        self.rollouts = None if database is None else Rollouts(database, _router())
        """What carries out rollouts; None where the settings name no database."""
        self.journal = None if database is None else self._journal(database)
        """What keeps the records of experiments; None where the settings name no database."""
        self.shadows = None if self.journal is None else Shadows(self.journal, metrics)
        """What makes the copies of calls; None where there is nothing to keep what they show."""
        self.allocations = None if self.journal is None else Allocations(self.journal.database)
        """What moves the shares of adaptive routes; None where the settings name no database."""
        if self.rollouts is not None:
            metrics.watch_rollouts(self.rollouts.standings)
        metrics.watch_tiers(self._answers.counted)
        metrics.watch_memory(lambda: (MemoryView(d, memory.held(d), memory.budget(d)) for d in memory.devices()))

    def gateway(self, tracing: Tracing) -> Gateway:
        """The gateway over everything that the settings' configuration has."""
        config = self._settings.config
        deployments = {model.id: self.deployment(model) for model in config.effective_models}
        snapshot = Snapshot.of(config, deployments)
        recorder = None
        if self.journal is not None and self.rollouts is not None:
            recorder = Recorders(self.journal, self.rollouts)
        self._gateway = Gateway(
            snapshot,
            self._answers,
            self._metrics,
            recorder=recorder,
            shadows=self.shadows,
            steered=self._steered,
            begin=tracing.begin,
            content_chars=tracing.content_chars,
        )
        return self._gateway

    def _steered(self, snapshot: Snapshot) -> Snapshot:
        if self.rollouts is None or self.allocations is None:
            return snapshot
        return self.allocations.steered(self.rollouts.steered(snapshot))

    async def prepare(self, snapshot: Snapshot) -> None:
        """Takes on what moves traffic in a registry that is about to come into force; raises `StateUnavailable`."""
        if self.rollouts is not None and self.allocations is not None:
            await self.allocations.prepare(snapshot)
            await self.rollouts.prepare(snapshot)
        elif any(rule.rollout is not None or rule.adaptive is not None for rule in snapshot.rules.values()):
            raise StateUnavailable("traffic that moves needs a state database (POLYROUTE_STATE_URL); there is none")

    def deployment(
        self, config: ModelConfig, *, backend: Backend | None = None, before: Deployment | None = None
    ) -> Deployment:
        """The deployment of an effective configuration; see `polyroute.routing.succession.Build`."""
        return deploy(
            config,
            backend or self._stand_ins.get(config.id) or self._backend(config),
            answers=self._answers,
            metrics=self._metrics,
            embedder=self.embedders.of(config),
            before=before,
            permits_for=self._part.permits_for,
        )

    def adopt(self, config: Config) -> None:
        """What deployments share takes on a configuration that has come into force."""
        self._memory.resize(config.memory_budget)
        self.embedders.keep(config)
        resize(self._answers, self._settings, config)
        if self.journal is not None:
            self.journal.retention_s = config.experiments.retention

    async def close(self) -> None:
        """Ends what deployments share, once they are stopped."""
        await self.embedders.close()
        self._names.close()

    def _journal(self, database: Database) -> Journal:
        retention_s = self._settings.config.experiments.retention
        return Journal(database, self._metrics, retention_s, rater=self.rollouts)

    def _backend(self, model: ModelConfig) -> Backend:
        if not isinstance(model, LocalConfig):
            return self._remote(model)
        return self._local(model) if self._part.local is None else self._part.local(model)

    def _remote(self, model: RemoteConfig) -> Pool:
        named = [url for url in model.base_urls if url.startswith(DNS_SCHEME)]
        return Pool(
            model,
            [
                RemoteBackend(model, url, turns=self._turns, lists=self._lists)
                for url in model.base_urls
                if url not in named
            ],
            sources=[Discovery(model, url, resolve=self._names.resolve, turns=self._turns) for url in named],
            around=self._around(model.id),
        )

    def _local(self, model: LocalConfig) -> WarmPool:
        pool = WarmPool(
            model,
            Pool(model, around=self._around(model.id)),
            self._replica,
            self._memory,
            queued=lambda: self._queued(model.id, pool),
            departure=lambda: self._departures.next_for(pool),
            on_load=partial(self._metrics.model_loaded, model.id),
            on_evict=partial(self._metrics.model_evicted, model.id),
        )
        return pool

    def _replica(
        self, config: LocalConfig, name: str, device: str, kv_cache_most: int | None, on_change: Callable[[], None]
    ) -> LocalBackend:
        return LocalBackend(
            config,
            cache_dir=self._settings.cache_dir,
            replica=name,
            device=device,
            kv_cache_most=kv_cache_most,
            cores=self._cores,
            on_restart=partial(self._metrics.worker_restarted, config.id),
            on_change=on_change,
        )

    def _around(self, id: str) -> Surroundings:
        return Surroundings(
            chance=self._chance,
            on_retry=partial(self._metrics.retried, id),
            on_hedge=partial(self._metrics.hedged, id),
            on_open=partial(self._part.opened, id),
        )

    def _queued(self, id: str, backend: Backend) -> int:
        """Calls that wait for a permit of that model, where it is `backend` that new ones come to."""
        found = None if self._gateway is None else self._gateway.snapshot.deployments.get(id)
        return found.permits.queued if found is not None and found.backend is backend else 0


def _router() -> str:
    """A name for this router, which no other one has, the next one at this place included."""
    return f"{socket.gethostname()}-{secrets.token_hex(3)}"
