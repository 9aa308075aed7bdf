"""From one configuration to the next: which deployments stay, which change, which are built and which leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import structlog

from polyroute.core.backend import Backend
from polyroute.core.config import LIVE, Config, ModelConfig, changed_options
from polyroute.routing.departures import Departures
from polyroute.routing.gateway import Gateway
from polyroute.routing.registry import Deployment, Snapshot, limit

ACQUAINT_S: Final = 1.0
"""How long a swap waits for new peers to have answered once, so that a model that was ready stays so."""

_AT_A_TIME: Final = 64

log = structlog.get_logger(__name__)


class Build(Protocol):
    """Makes a deployment out of a model's configuration; see `polyroute.routing.stack.deploy`."""

    def __call__(
        self, config: ModelConfig, *, backend: Backend | None = None, before: Deployment | None = None
    ) -> Deployment:
        """With `backend` the deployment keeps that one, else it gets a new one. It takes the place of `before`."""
        ...


@dataclass(slots=True)
class Changes:
    """IDs of models, by what became of their deployments. `adjusted` ones kept their backend."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    adjusted: list[str] = field(default_factory=list)


class Succession:
    """Brings a gateway from its snapshot to that of another configuration. One at a time: the caller sees to that.

    `prepare` is given each snapshot right before it comes into force, and `on_swap` is told its configuration then.
    """

    def __init__(
        self,
        gateway: Gateway,
        build: Build,
        departures: Departures,
        on_swap: Callable[[Config], None] = lambda _config: None,
        prepare: Callable[[Snapshot], Awaitable[None]] | None = None,
    ) -> None:
        self._gateway = gateway
        self._build = build
        self._departures = departures
        self._on_swap = on_swap
        self._prepare = prepare

    async def preview(self, config: Config) -> Changes:
        """What `to` would change."""
        _, changes = await asyncio.to_thread(_compare, self._gateway.snapshot, config)
        return changes

    async def to(self, config: Config) -> Changes:
        """Builds what is new, then swaps in one step. If it fails or is cancelled before, nothing has changed."""
        old = self._gateway.snapshot
        models, changes = await asyncio.to_thread(_compare, old, config)
        built = await self._build_all(old, models, changes)
        new = [built[id] for id in (*changes.rebuilt, *changes.added)]
        try:
            deployments = {model.id: built.get(model.id) or old.deployments[model.id] for model in models}
            snapshot = await asyncio.to_thread(Snapshot.of, config, deployments, old)
            await _acquaint([deployment for deployment in new if not deployment.local])
            if self._prepare is not None:
                await self._prepare(snapshot)
        except BaseException:
            await asyncio.gather(*(deployment.backend.stop() for deployment in new))
            raise
        self._swap(old, snapshot, changes)
        self._on_swap(config)
        for deployment in new:
            if deployment.local:  # now, when those that leave are known: their memory is waited for
                await _start(deployment)
        return changes

    async def _build_all(self, old: Snapshot, models: Iterable[ModelConfig], changes: Changes) -> dict[str, Deployment]:
        """The deployments that are not the old ones, by ID."""
        adjusted, anew = set(changes.adjusted), {*changes.added, *changes.rebuilt}
        built: dict[str, Deployment] = {}
        for model in models:
            before = old.deployments.get(model.id)
            if model.id in anew:
                built[model.id] = self._build(model, before=before)
            elif model.id in adjusted and before is not None:
                built[model.id] = self._build(model, backend=before.backend, before=before)
            else:
                continue
            if len(built) % _AT_A_TIME == 0:
                await asyncio.sleep(0)  # calls go on meanwhile
        return built

    def _swap(self, old: Snapshot, new: Snapshot, changes: Changes) -> None:
        """Nothing is awaited here, so every call sees either all of the old or all of the new."""
        for id in changes.adjusted:
            deployment = new.deployments[id]
            deployment.backend.adopt(deployment.config)
        for id in (*changes.adjusted, *changes.rebuilt):
            deployment = new.deployments[id]
            if deployment.permits is old.deployments[id].permits:
                limit(deployment.permits, deployment.config, deployment.backend.facts)
        for id in (*changes.removed, *changes.rebuilt):
            self._departures.begin(old.deployments[id]).add_done_callback(partial(self._left, id))
        self._gateway.swap(new, self._departures.names)

    def _left(self, id: str, _: asyncio.Task[None]) -> None:
        """Metrics tell of what leaves until it has left."""
        if not self._departures.leaving(id):
            self._gateway.forget(id)


def _compare(old: Snapshot, config: Config) -> tuple[tuple[ModelConfig, ...], Changes]:
    """The effective models of a configuration, and what would become of each, without touching anything."""
    models, changes = config.effective_models, Changes()
    left = set(old.deployments)
    for model in models:
        left.discard(model.id)
        before = old.deployments.get(model.id)
        if before is None:
            changes.added.append(model.id)
        elif before.config != model:
            live = changed_options(before.config, model) <= LIVE
            (changes.adjusted if live else changes.rebuilt).append(model.id)
    changes.removed.extend(sorted(left))
    return models, changes


async def _start(deployment: Deployment) -> None:
    """Starts what is in force already: what goes wrong is that model's alone."""
    try:
        await deployment.backend.start()
    except Exception:  # our bug
        log.exception("deployment.start_failed", model=deployment.id)


async def _acquaint(peers: Sequence[Deployment]) -> None:
    """Starts peers, and waits a moment until each of the first few has been reached or not."""
    for place, deployment in enumerate(peers):
        if place % _AT_A_TIME == 0:
            await asyncio.sleep(0)
        await deployment.backend.start()
    asking = [asyncio.create_task(deployment.backend.load()) for deployment in peers[:_AT_A_TIME]]
    try:
        if asking:
            await asyncio.wait(asking, timeout=ACQUAINT_S)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)  # how they are shows in their state
