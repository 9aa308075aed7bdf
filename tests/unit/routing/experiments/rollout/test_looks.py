"""Rollouts in the state database: one router decides at a time, and what is kept outlives each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from polyroute.core.backend import ModelState
from polyroute.core.config import RolloutConfig
from polyroute.core.errors import InvalidArgument
from polyroute.routing.experiments.database import Database, default_url
from polyroute.routing.experiments.pairs import Pairs
from polyroute.routing.experiments.rollout import store
from polyroute.routing.experiments.rollout.decision import Action, State
from polyroute.routing.experiments.rollout.evidence import Evidence, Tally
from polyroute.routing.experiments.rollout.looks import Case, Looked, adopt, ask, look

TERM_S = 60.0
GOOD = Evidence(Tally(200, 0), Tally(200, 0), Pairs(even=200))
BAD = Evidence(Tally(50, 0), Tally(50, 40), Pairs(worse=40, even=10))


def case(identity: str = "one", **keys: Any) -> Case:
    steps = [{"weight": w, "hold": "1ms", "min_samples": 10} for w in (0.1, 0.5)]
    rails = {"first_token": "off", "duration": "off"}
    plan = RolloutConfig.model_validate({"from": "old", "to": "new", "steps": steps, "guardrails": rails} | keys)
    return Case("r", identity, plan, old=ModelState.WARM, new=ModelState.WARM)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(default_url(tmp_path))
    yield opened
    await opened.close()


async def looked(database: Database, router: str, seen: Evidence | None = None, term_s: float = TERM_S) -> Looked:
    at = case() if seen is None else replace(case(), seen=seen, fresh=True)
    found = await database.write(partial(look, case=at, router=router, term_s=term_s))
    assert found is not None
    return found


async def begun(database: Database, router: str = "a") -> None:
    await database.write(partial(adopt, case=case(), router=router))
    assert (await looked(database, router)).row.standing.state is State.RUNNING


async def test_a_new_rollout_is_pending_without_traffic_and_then_begins(database: Database) -> None:
    row = await database.write(partial(adopt, case=case(), router="a"))
    assert (row.standing.state, row.weight, row.controller) == (State.PENDING, 0.0, "")
    found = await looked(database, "a")
    assert (found.row.standing.state, found.row.weight, found.row.controller) == (State.RUNNING, 0.1, "a")


async def test_one_router_decides_and_the_other_follows(database: Database) -> None:
    await begun(database)
    other = await looked(database, "b", GOOD)
    assert (other.row.controller, other.found) == ("a", None)
    assert other.evidence == GOOD
    first = await looked(database, "a")
    assert first.found is not None
    assert (first.row.standing.step, first.evidence) == (1, GOOD)  # by what the other one has seen
    assert (await looked(database, "b")).row.weight == 0.5


async def test_a_rollout_that_comes_back_begins_without_what_was_seen_of_it(database: Database) -> None:
    await begun(database)
    assert (await looked(database, "a", replace(BAD, stop="it failed"))).row.standing.state is State.ROLLED_BACK
    await database.write(partial(adopt, case=case("two"), router="a"))
    await begun(database)
    found = await looked(database, "a")
    assert (found.row.standing.state, found.evidence) == (State.RUNNING, Evidence())


async def test_evidence_of_routers_adds_up_and_is_not_counted_twice(database: Database) -> None:
    await begun(database)
    for _ in range(3):
        await looked(database, "b", Evidence(new=Tally(4, 1)))
    found = await looked(database, "a", Evidence(new=Tally(3, 0)))
    assert found.evidence.new == Tally(7, 1)


async def test_another_router_takes_over_when_the_term_is_over(database: Database) -> None:
    await database.write(partial(adopt, case=case(), router="a"))
    await looked(database, "a", term_s=0.0)  # and is not heard of again
    found = await looked(database, "b", BAD)
    assert (found.row.controller, found.row.standing.state) == ("b", State.ROLLED_BACK)
    assert (await looked(database, "a")).row.standing.state is State.ROLLED_BACK


async def test_a_decision_on_what_has_changed_meanwhile_is_void(database: Database) -> None:
    await begun(database)
    stale = await database.read(partial(store.load, route="r"))
    assert stale is not None
    await database.write(partial(ask, case=case(), action=Action.ROLL_BACK, reason="", actor="operator"))
    found = await database.write(partial(_move_on, row=stale))
    assert found is None
    assert (await looked(database, "a", GOOD)).row.standing.state is State.ROLLED_BACK


def _move_on(connection: Any, row: store.Row) -> store.Row | None:
    from polyroute.routing.experiments.rollout.decision import Standing, Transition

    to = Transition(Standing(State.PROMOTED, 1, 5.0, 0), "late")
    return store.move(connection, row, to, 1.0, "a", ())


async def test_the_same_rollout_is_taken_up_where_it_was_and_another_one_begins_anew(database: Database) -> None:
    await begun(database)
    again = await database.write(partial(adopt, case=case(), router="b"))
    assert (again.standing.state, again.weight) == (State.RUNNING, 0.1)
    other = await database.write(partial(adopt, case=case("two"), router="b"))
    assert (other.standing.state, other.weight) == (State.PENDING, 0.0)
    assert await database.write(partial(look, case=case(), router="a", term_s=TERM_S)) is None  # not its any more
    with pytest.raises(InvalidArgument, match="another rollout"):
        await database.write(partial(ask, case=case(), action=Action.PAUSE, reason="", actor="operator"))


async def test_changed_steps_move_nobody_back(database: Database) -> None:
    await begun(database)
    changed = case(steps=[{"weight": 0.05}, {"weight": 0.2}, {"weight": 0.4}])
    row = await database.write(partial(adopt, case=changed, router="a"))
    assert (row.standing.state, row.standing.step, row.weight) == (State.RUNNING, 1, 0.2)
    assert (await database.write(partial(adopt, case=changed, router="a"))).revision == row.revision


async def test_every_change_is_kept_with_its_evidence(database: Database) -> None:
    await begun(database)
    await looked(database, "a", BAD)
    kept = await database.read(partial(store.history, route="r"))
    assert [(change.before, change.after) for change in kept] == [
        (State.PENDING, State.PENDING),
        (State.PENDING, State.RUNNING),
        (State.RUNNING, State.ROLLED_BACK),
    ]
    assert kept[0].actor == "a"
    (errors,) = kept[-1].evidence
    assert (errors.metric, errors.samples_from, errors.samples_to) == ("errors", 50, 50)
    assert errors.e_value > 100
    assert 0 < errors.lower < 0.8 < errors.upper < 1
