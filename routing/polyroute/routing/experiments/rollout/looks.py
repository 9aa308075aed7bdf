"""One look at rollouts in the state database: keeps what this router has seen, and decides where it may."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection

from polyroute.core.backend import ModelState
from polyroute.core.config import RolloutConfig
from polyroute.core.errors import InvalidArgument
from polyroute.routing.experiments.rollout import store
from polyroute.routing.experiments.rollout.decision import Action, Standing, Transition, act, decide, follow
from polyroute.routing.experiments.rollout.evidence import Evidence
from polyroute.routing.experiments.rollout.store import Row
from polyroute.routing.experiments.rollout.view import shown


@dataclass(frozen=True, slots=True)
class Case:
    """One rollout as this router knows it.

    `seen` is what its own calls have shown, `fresh` that this has not been kept yet; `old` and `new` are the states of
    the versions' models.
    """

    route: str
    identity: str
    plan: RolloutConfig
    seen: Evidence = field(default_factory=Evidence)
    fresh: bool = False
    old: ModelState = ModelState.UNSPECIFIED
    new: ModelState = ModelState.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Looked:
    """A rollout after a look: what all routers have seen of it, and the change that this one has made, if any."""

    row: Row
    evidence: Evidence
    found: Transition | None = None


def adopt(connection: Connection, case: Case, router: str) -> Row:
    """The route's rollout as the configuration has it now: the one that is kept, or a new one."""
    store.alone(connection)
    row, at = store.load(connection, case.route), store.now(connection)
    if row is None or row.identity != case.identity:
        row = Row(case.route, case.identity, Standing(since=at), 0.0)
        store.begin(connection, row, router, "configured")
        return store.load(connection, case.route) or row
    found = follow(case.plan, row.standing, row.weight, at)
    if found is None:
        return row
    evidence = shown(case.plan, store.evidence_of(connection, row))
    return store.move(connection, row, found, found.to.weight(case.plan), router, evidence) or row


def look(connection: Connection, case: Case, router: str, term_s: float) -> Looked | None:
    """Keeps the evidence, and makes the next transition where this router decides; None where it is not its rollout."""
    row = store.load(connection, case.route)
    if row is None or row.identity != case.identity:
        return None
    if row.standing.state.ended:
        return Looked(row, Evidence())
    if case.fresh:
        store.keep_evidence(connection, row, router, case.seen)
    evidence = store.evidence_of(connection, row)
    row = store.take(connection, row, router, term_s)
    if row.controller != router:
        return Looked(row, evidence)
    found = decide(case.plan, row.standing, evidence, case.old, case.new, store.now(connection))
    if found is None:
        return Looked(row, evidence)
    after = store.move(connection, row, found, found.to.weight(case.plan), router, shown(case.plan, evidence))
    return Looked(after or row, evidence, found if after else None)


def ask(connection: Connection, case: Case, action: Action, reason: str, actor: str) -> Looked:
    """Makes the transition that an operator asks for; raises `InvalidArgument` where it makes no sense."""
    row = store.load(connection, case.route)
    if row is None or row.identity != case.identity:
        raise InvalidArgument("route", f"`{case.route}`: another router has begun another rollout of it")
    evidence = store.evidence_of(connection, row)
    found = act(case.plan, row.standing, evidence, action, reason, store.now(connection))
    after = store.move(connection, row, found, found.to.weight(case.plan), actor, shown(case.plan, evidence))
    if after is None:
        raise InvalidArgument("route", f"`{case.route}`: its rollout has just changed; look again")
    return Looked(after, evidence, found)
