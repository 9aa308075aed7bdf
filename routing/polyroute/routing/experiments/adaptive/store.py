"""Shares that follow what is learnt, in the state database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Connection, Double, Table, Text, func, insert, select, update

from polyroute.core.config import AdaptiveConfig
from polyroute.routing.experiments.adaptive.thompson import Arm, shares
from polyroute.routing.experiments.evidence import ERRORS
from polyroute.routing.experiments.rollout.store import alone, now
from polyroute.routing.experiments.tables import metadata, sums

allocations = Table(
    "allocations",
    metadata,
    Column("route", Text, primary_key=True),
    Column("identity", Text, nullable=False),
    Column("shares", Text, nullable=False),
    Column("at", Double, nullable=False),
)
"""Each adaptive route's shares as a JSON object by variant, and when they were reckoned, in Unix time."""

_LEAST_MOVE: Final = 0.005
"""Changes below this are left for later: they would teach next to nothing, and each moves keys and is a split more."""


@dataclass(frozen=True, slots=True)
class Learner:
    """An adaptive route: `models` are those of its variants by name, `first` the shares before anything is known.

    `identity` says which variants and metric the shares are of: with others, it begins anew.
    """

    route: str
    identity: str
    plan: AdaptiveConfig
    models: Mapping[str, str]
    first: Mapping[str, float]


def adopt(connection: Connection, learner: Learner) -> dict[str, float]:
    """The shares that are kept, or the first ones where there are none of this route as it is now."""
    alone(connection)
    kept = _kept(connection, learner.route)
    if kept is not None and kept[0] == learner.identity:
        return kept[1]
    values = {"identity": learner.identity, "shares": json.dumps(dict(learner.first)), "at": now(connection)}
    if kept is None:
        connection.execute(insert(allocations).values(route=learner.route, **values))
    else:
        connection.execute(update(allocations).where(allocations.c.route == learner.route).values(values))
    return dict(learner.first)


def look(connection: Connection, learner: Learner) -> dict[str, float] | None:
    """The shares that all routers use now, reckoned anew by the first that finds them old; None where not its own."""
    kept = _kept(connection, learner.route)
    if kept is None or kept[0] != learner.identity:
        return None
    _, split, at = kept
    moment = now(connection)
    if moment < at + learner.plan.every:
        return split
    names = sorted(learner.models)
    known = arms(connection, learner, moment - learner.plan.window)
    learnt = dict(zip(names, shares([known[name] for name in names], learner.plan.floor), strict=True))
    if _alike(learnt, split) and min(split.values()) >= learner.plan.floor:
        learnt = split
    same = (allocations.c.route == learner.route) & (allocations.c.at == at)
    written = connection.execute(update(allocations).where(same).values(shares=json.dumps(learnt), at=moment))
    return learnt if written.rowcount == 1 else split


def arms(connection: Connection, learner: Learner, since: float) -> dict[str, Arm]:
    """What is known of each variant since that moment of Unix time, of its present model alone."""
    found = dict.fromkeys(learner.models, Arm())
    asked = (
        select(sums.c.arm, sums.c.model, func.sum(sums.c.count), func.sum(sums.c.total))
        .where(sums.c.route == learner.route, sums.c.metric == learner.plan.metric, sums.c.minute >= int(since // 60))
        .group_by(sums.c.arm, sums.c.model)
    )
    for arm, model, count, total in connection.execute(asked):
        if learner.models.get(arm) == model:
            rewards = count - total if learner.plan.metric == ERRORS else total
            found[arm] = Arm(min(max(float(rewards), 0.0), float(count)), float(count))
    return found


def _alike(learnt: Mapping[str, float], split: Mapping[str, float]) -> bool:
    return all(abs(share - split[name]) < _LEAST_MOVE for name, share in learnt.items())


def _kept(connection: Connection, route: str) -> tuple[str, dict[str, float], float] | None:
    row = connection.execute(select(allocations).where(allocations.c.route == route)).mappings().one_or_none()
    return None if row is None else (row["identity"], json.loads(row["shares"]), row["at"])
