"""Rollouts in the state database: where they stand, who decides, what has been seen, and every change."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, delete, insert, or_, select, text, update

from polyroute.routing.experiments.rollout.decision import Standing, State, Transition
from polyroute.routing.experiments.rollout.evidence import Evidence
from polyroute.routing.experiments.rollout.tables import rollout_evidence, rollout_transitions, rollouts
from polyroute.routing.experiments.rollout.view import Change, Shown

_BEGINNING: Final = 0x706F6C79726F6C6C
"""Number of the lock on Postgres under which rollouts begin."""


@dataclass(frozen=True, slots=True)
class Row:
    """A rollout as it is kept; `weight` is the new version's share, `revision` counts changes.

    `controller` decides until `until`, in seconds of the database's time.
    """

    route: str
    identity: str
    standing: Standing
    weight: float
    revision: int = 0
    controller: str = ""
    until: float = 0.0


def now(connection: Connection) -> float:
    """Unix time in seconds: the database's own, so that routers on several machines agree."""
    if connection.dialect.name == "postgresql":
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    return time.time()  # SQLite runs on this machine


def alone(connection: Connection) -> None:
    """Keeps other routers waiting that would begin rollouts too, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _BEGINNING})


def load(connection: Connection, route: str) -> Row | None:
    """The route's rollout, or None where there has never been one."""
    found = connection.execute(select(rollouts).where(rollouts.c.route == route)).mappings().one_or_none()
    if found is None:
        return None
    standing = Standing(State[found["state"]], found["step"], found["since"], found["samples"])
    return Row(
        route,
        found["identity"],
        standing,
        found["weight"],
        found["revision"],
        found["controller"],
        found["until"],
    )


def begin(connection: Connection, row: Row, actor: str, reason: str) -> None:
    """Makes it the route's rollout, in place of the one that there may be, which nobody controls from then on.

    It begins without evidence, also where the route has had this very rollout some time before.
    """
    before = load(connection, row.route)
    connection.execute(delete(rollout_evidence).where(rollout_evidence.c.route == row.route))
    values = _values(row) | {"controller": "", "until": 0.0}
    if before is None:
        connection.execute(insert(rollouts).values(values))
    else:
        values["revision"] = before.revision + 1
        connection.execute(update(rollouts).where(rollouts.c.route == row.route).values(values))
    _note(connection, row, before, actor, reason, ())


def take(connection: Connection, row: Row, router: str, term_s: float) -> Row:
    """Makes `router` the controller for `term_s` seconds, unless another one is; the row as it is afterwards."""
    at = now(connection)
    mine = row.controller == router and row.until > at
    if mine and row.until - at > term_s / 2:
        return row
    free = or_(rollouts.c.controller == router, rollouts.c.until <= at)
    same = (rollouts.c.route == row.route) & (rollouts.c.revision == row.revision)
    connection.execute(update(rollouts).where(same & free).values(controller=router, until=at + term_s))
    return load(connection, row.route) or row


def move(
    connection: Connection, row: Row, found: Transition, weight: float, actor: str, shown: tuple[Shown, ...]
) -> Row | None:
    """Brings the rollout to where a transition leads, and notes it; None where it has changed since `row` was read."""
    after = Row(row.route, row.identity, found.to, weight, row.revision + 1, row.controller, row.until)
    same = (rollouts.c.route == row.route) & (rollouts.c.revision == row.revision)
    changed = connection.execute(update(rollouts).where(same).values(_values(after)))
    if changed.rowcount != 1:
        return None
    _note(connection, after, row, actor, found.reason, shown)
    return after


def keep_evidence(connection: Connection, row: Row, router: str, evidence: Evidence) -> None:
    """What `router` has seen of the rollout so far, all of it."""
    mine = (
        (rollout_evidence.c.route == row.route)
        & (rollout_evidence.c.identity == row.identity)
        & (rollout_evidence.c.router == router)
    )
    written = evidence.to_json()
    if connection.execute(update(rollout_evidence).where(mine).values(evidence=written)).rowcount == 0:
        key = {"route": row.route, "identity": row.identity, "router": router}
        connection.execute(insert(rollout_evidence).values(evidence=written, **key))


def evidence_of(connection: Connection, row: Row) -> Evidence:
    """What all routers have seen of the rollout."""
    theirs = select(rollout_evidence.c.evidence).where(
        rollout_evidence.c.route == row.route, rollout_evidence.c.identity == row.identity
    )
    found = Evidence()
    for (written,) in connection.execute(theirs):
        found += Evidence.from_json(written)
    return found


def history(connection: Connection, route: str) -> tuple[Change, ...]:
    """Every change of the route's rollouts, oldest first."""
    notes = select(rollout_transitions).where(rollout_transitions.c.route == route).order_by(rollout_transitions.c.id)
    return tuple(
        Change(
            note["at"],
            State[note["from_state"]],
            State[note["to_state"]],
            note["step"],
            note["weight"],
            note["reason"],
            note["actor"],
            tuple(Shown(**each) for each in json.loads(note["evidence"])),
        )
        for note in connection.execute(notes).mappings()
    )


def _values(row: Row) -> dict[str, object]:
    return {
        "route": row.route,
        "identity": row.identity,
        "state": row.standing.state.name,
        "step": row.standing.step,
        "since": row.standing.since,
        "samples": row.standing.samples,
        "weight": row.weight,
        "revision": row.revision,
    }


def _note(
    connection: Connection, row: Row, before: Row | None, actor: str, reason: str, shown: tuple[Shown, ...]
) -> None:
    connection.execute(
        insert(rollout_transitions).values(
            route=row.route,
            identity=row.identity,
            at=row.standing.since,
            from_state=(before or row).standing.state.name,
            to_state=row.standing.state.name,
            step=row.standing.step,
            weight=row.weight,
            reason=reason,
            actor=actor,
            evidence=json.dumps([asdict(each) for each in shown]),
        )
    )
