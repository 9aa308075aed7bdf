"""Keeps the shares of adaptive routes in force: looks once a second, and moves traffic when they have changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection

from polyroute.core.config import AdaptiveConfig
from polyroute.core.errors import StateUnavailable
from polyroute.routing.experiments.adaptive.store import Learner, adopt, look
from polyroute.routing.experiments.database import Database
from polyroute.routing.experiments.rollout.rollouts import Steered
from polyroute.routing.plan import Rule
from polyroute.routing.registry import Snapshot

T = TypeVar("T")

LOOK_S: Final = 1.0
"""Seconds between two looks: how late a router follows."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Learnt:
    learner: Learner
    shares: Mapping[str, float]


class Allocations:
    """The adaptive routes of one router. While the database cannot be reached, shares stay as they are."""

    def __init__(self, database: Database, *, look_s: float = LOOK_S) -> None:
        self._database = database
        self._look_s = look_s
        self._learnt: dict[str, _Learnt] = {}
        self._loop: asyncio.Task[None] | None = None
        self._lost = False

    async def prepare(self, snapshot: Snapshot) -> None:
        """Takes on the adaptive routes of a registry that is about to come into force. Raises `StateUnavailable`."""
        learners = [_learner(rule) for rule in snapshot.rules.values() if rule.adaptive is not None]
        kept = await self._database.write(partial(_each, adopt, learners)) if learners else []
        self._learnt = {one.route: _Learnt(one, split) for one, split in zip(learners, kept, strict=True)}

    def steered(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the shares that its adaptive routes have now."""
        changed = {}
        for route, learnt in self._learnt.items():
            rule = snapshot.rules.get(route)
            if rule is None or rule.adaptive is None or _identity(rule, rule.adaptive) != learnt.learner.identity:
                continue
            if (steered := _shared(rule, learnt.shares)) != rule:
                changed[route] = steered
        return replace(snapshot, rules=MappingProxyType({**snapshot.rules, **changed})) if changed else snapshot

    def start(self, gateway: Steered) -> None:
        """Begins to look, once a second, until `close`."""
        self._loop = asyncio.create_task(self._run(gateway), name="adaptive shares")

    async def close(self) -> None:
        """Stops looking."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def look(self, gateway: Steered) -> None:
        """One look at every adaptive route. Raises `StateUnavailable`."""
        learners = [learnt.learner for learnt in self._learnt.values()]
        if not learners:
            return
        for learner, split in zip(learners, await self._database.write(partial(_each, look, learners)), strict=True):
            before = self._learnt.get(learner.route)
            if split is None or before is None or before.learner is not learner or split == before.shares:
                continue
            self._learnt[learner.route] = _Learnt(learner, split)
            log.info("allocation.moved", route=learner.route, shares={k: round(v, 4) for k, v in split.items()})
        gateway.steer()

    async def _run(self, gateway: Steered) -> None:
        while True:
            try:
                await self.look(gateway)
                self._lost = False
            except StateUnavailable as error:
                if not self._lost:
                    log.warning("allocation.state_lost", error=error.message, effect="shares stay as they are")
                self._lost = True
            except Exception:  # our bug: shares stand still, and calls go on
                log.exception("allocation.crashed")
            await asyncio.sleep(self._look_s)


def _learner(rule: Rule) -> Learner:
    assert rule.adaptive is not None  # noqa: S101 - the caller looked
    models = {variant.name: variant.deployment for variant in rule.variants}
    first = {variant.name: rule.share(variant) for variant in rule.variants}
    return Learner(rule.id, _identity(rule, rule.adaptive), rule.adaptive, models, first)


def _identity(rule: Rule, plan: AdaptiveConfig) -> str:
    """What the shares are of: other variants, models or metrics begin anew."""
    return json.dumps([plan.metric, sorted((variant.name, variant.deployment) for variant in rule.variants)])


def _shared(rule: Rule, split: Mapping[str, float]) -> Rule:
    return replace(rule, variants=tuple(replace(v, weight=split.get(v.name, v.weight)) for v in rule.variants))


def _each(work: Callable[[Connection, Learner], T], learners: Iterable[Learner], connection: Connection) -> list[T]:
    return [work(connection, learner) for learner in learners]
