"""Carries out rollouts: listens to calls, looks at what they show once a second, and moves traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Protocol

import structlog
from sqlalchemy import Connection

from polyroute.core.errors import InvalidArgument, NotFound, StateUnavailable, clip
from polyroute.routing.experiments.database import Database
from polyroute.routing.experiments.records import CallRecord
from polyroute.routing.experiments.rollout import store
from polyroute.routing.experiments.rollout.comparison import Comparison
from polyroute.routing.experiments.rollout.decision import Action
from polyroute.routing.experiments.rollout.evidence import Evidence
from polyroute.routing.experiments.rollout.followed import Followed, name
from polyroute.routing.experiments.rollout.looks import Case, Looked, adopt, ask, look
from polyroute.routing.experiments.rollout.steering import identity, steer
from polyroute.routing.experiments.rollout.store import Row
from polyroute.routing.experiments.rollout.view import RolloutView, shown
from polyroute.routing.plan import Rule
from polyroute.routing.registry import Snapshot
from polyroute.routing.views import RolloutStanding

LOOK_S: Final = 1.0
"""Seconds between two looks: how old the evidence that a crash leaves may be, and how late other routers follow."""

TERM_S: Final = 10.0
"""Seconds that a router controls a rollout without having looked at it again."""

log = structlog.get_logger(__name__)


class Steered(Protocol):
    """What rollouts move the traffic of."""

    @property
    def snapshot(self) -> Snapshot:
        """The registry in force."""
        ...

    def steer(self) -> None:
        """Brings the registry in force to the weights that rollouts have now."""
        ...


class Rollouts:
    """The rollouts of one router, which the state database knows as `router`.

    Every router follows where a rollout stands; one at a time decides, under a lease of `term_s` seconds. While the
    database cannot be reached, everything stays as it is.
    """

    def __init__(self, database: Database, router: str, *, look_s: float = LOOK_S, term_s: float = TERM_S) -> None:
        self._database = database
        self._router = router
        self._look_s = look_s
        self._term_s = term_s
        self._followed: dict[str, Followed] = {}
        self._hurry = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._lost = False

    def recorded(self, record: CallRecord) -> None:
        """A call has ended; see `polyroute.routing.experiments.records.Recorder`."""
        followed = self._followed.get(record.route)
        if followed is None or followed.foreign or followed.row.standing.state.ended:
            return
        calm = not followed.comparison.stop
        followed.saw(record)
        if calm and followed.comparison.stop:
            self._hurry.set()

    def rated(self, record: CallRecord, metric: str, rating: float) -> None:
        """A caller rated an answer; see `polyroute.routing.experiments.records.Rater`."""
        followed = self._followed.get(record.route)
        if followed is not None and not followed.foreign and not followed.row.standing.state.ended:
            followed.rated(record, metric, rating)

    async def prepare(self, snapshot: Snapshot) -> None:
        """Takes on the rollouts of a registry that is about to come into force. Raises `StateUnavailable`."""
        cases = [_case(snapshot, rule) for rule in snapshot.rules.values() if rule.rollout is not None]
        rows = await self._database.write(partial(_each, adopt, cases, self._router)) if cases else []
        self._followed = {case.route: self._follow(case, row) for case, row in zip(cases, rows, strict=True)}

    def steered(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the weights that its rollouts have now."""
        return steer(snapshot, {route: followed.row.weight for route, followed in self._followed.items()})

    def start(self, gateway: Steered) -> None:
        """Begins to look, once a second, until `close`."""
        self._loop = asyncio.create_task(self._run(gateway), name="rollouts")

    async def close(self) -> None:
        """Stops looking, and keeps what has been seen."""
        if self._loop is None:
            return
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        fresh = [(each.seen, each.row) for each in self._followed.values() if each.seen != each.kept]
        if fresh:
            try:
                await self._database.write(partial(_keep, fresh, self._router))
            except StateUnavailable as error:
                log.warning("rollout.evidence_lost", error=error.message)

    async def look(self, gateway: Steered) -> None:
        """One look at every rollout: keeps evidence, decides where this router may, and moves traffic."""
        self._hurry.clear()
        followed = [each for each in self._followed.values() if not each.foreign]
        if not followed:
            return
        cases = [each.now(gateway.snapshot) for each in followed]
        work = partial(_looks, cases, self._router, self._term_s)
        ended = all(each.row.standing.state.ended for each in followed)
        looked = await (self._database.read(work) if ended else self._database.write(work))
        for each, case, found in zip(followed, cases, looked, strict=True):
            each.kept = case.seen
            self._take(each, found)
        gateway.steer()

    async def ask(self, gateway: Steered, route: str, action: Action, reason: str, actor: str) -> RolloutView:
        """Does what an operator asks for; raises `NotFound`, `InvalidArgument` and `StateUnavailable`."""
        followed = self._of(route)
        if len(reason) > _LONGEST_REASON:
            raise InvalidArgument("reason", f"{len(reason)} characters, at most {_LONGEST_REASON}")
        work = partial(ask, case=followed.now(gateway.snapshot), action=action, reason=reason, actor=actor)
        self._take(followed, await self._database.write(work))
        gateway.steer()
        return await self.view(route)

    async def view(self, route: str) -> RolloutView:
        """A route's rollout as it stands, with its history; raises `NotFound` and `StateUnavailable`."""
        case = self._of(route).case
        return await self._database.read(partial(_view, case=case))

    async def views(self, after: str = "", most: int | None = None) -> tuple[RolloutView, ...]:
        """The rollouts by route: all, or those `after` a route, `most` of them at most."""
        routes = sorted(route for route in self._followed if route > after)[:most]
        return tuple([await self.view(route) for route in routes])

    def standings(self) -> tuple[RolloutStanding, ...]:
        """Where each rollout stood at the last look, those left out that another configuration took over.

        Any thread may ask.
        """
        return tuple(
            RolloutStanding(route, name(each.row.standing.state), each.row.weight, each.moves, each.case.plan.to)
            for route, each in self._followed.items()
            if not each.foreign
        )

    async def _run(self, gateway: Steered) -> None:
        while True:
            try:
                await self.look(gateway)
                if self._lost:
                    log.info("rollout.state_back")
                self._lost = False
            except StateUnavailable as error:
                if not self._lost:
                    log.warning("rollout.state_lost", error=error.message, effect="weights stay as they are")
                self._lost = True
            except Exception:  # our bug: rollouts stand still, and calls go on
                log.exception("rollout.crashed")
            try:
                async with asyncio.timeout(self._look_s):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    def _follow(self, case: Case, row: Row) -> Followed:
        before = self._followed.get(case.route)
        if before is not None and before.case.identity == case.identity and not before.foreign:
            before.comparison.consecutive = case.plan.consecutive_failures
            before.stands(row)
            return Followed(case, row, before.comparison, before.kept, moves=before.moves)
        return Followed(case, row, Comparison(Evidence(), case.plan.consecutive_failures))

    def _take(self, followed: Followed, looked: Looked | None) -> None:
        if looked is None:
            followed.foreign = True
            log.warning("rollout.superseded", route=followed.case.route, effect="its weights stay as they are here")
            return
        if looked.row.revision != followed.row.revision:
            followed.moves[name(looked.row.standing.state)] += 1
            log.info(
                "rollout.moved",
                route=followed.case.route,
                state=name(looked.row.standing.state),
                step=looked.row.standing.step,
                weight=looked.row.weight,
                reason=looked.found.reason if looked.found else "another router or an operator moved it",
            )
        followed.stands(looked.row)

    def _of(self, route: str) -> Followed:
        found = self._followed.get(route)
        if found is None:
            raise NotFound("rollout", route, f"route: `{clip(route, 200)}` has no rollout")
        return found


_LONGEST_REASON: Final = 1_000


def _case(snapshot: Snapshot, rule: Rule) -> Case:
    assert rule.rollout is not None  # noqa: S101 - the caller looked
    return Case(rule.id, identity(snapshot, rule, rule.rollout), rule.rollout)


def _each(
    work: Callable[[Connection, Case, str], Row], cases: Iterable[Case], router: str, connection: Connection
) -> list[Row]:
    return [work(connection, case, router) for case in cases]


def _looks(cases: Iterable[Case], router: str, term_s: float, connection: Connection) -> list[Looked | None]:
    return [look(connection, case, router, term_s) for case in cases]


def _keep(seen: Iterable[tuple[Evidence, Row]], router: str, connection: Connection) -> None:
    for evidence, row in seen:
        store.keep_evidence(connection, row, router, evidence)


def _view(connection: Connection, case: Case) -> RolloutView:
    row = store.load(connection, case.route)
    if row is None:
        raise NotFound("rollout", case.route, f"route: the rollout of `{case.route}` is gone from the state database")
    evidence = store.evidence_of(connection, row)
    controls = row.until > store.now(connection) and not row.standing.state.ended
    return RolloutView(
        case.route,
        case.plan,
        row.standing,
        row.weight,
        shown(case.plan, evidence),
        store.history(connection, case.route),
        row.controller if controls else "",
    )
