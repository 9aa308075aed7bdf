"""Which calls count for a rollout, how traffic follows it, and what it does while the database is away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyroute.backends.echo import EchoBackend
from polyroute.core.backend import ModelState
from polyroute.core.errors import NotFound, StateUnavailable
from polyroute.routing.experiments.database import Database, default_url
from polyroute.routing.experiments.records import CallRecord
from polyroute.routing.experiments.rollout.decision import Action, State
from polyroute.routing.experiments.rollout.evidence import Tally
from polyroute.routing.experiments.rollout.rollouts import Rollouts
from polyroute.routing.gateway import Gateway

STEPS = [{"weight": 0.25, "hold": "1h"}]


@pytest.fixture
def echoes() -> dict[str, EchoBackend]:
    return {id: EchoBackend(id) for id in ("one", "two")}


@pytest.fixture
def gateway(build: Callable[..., Gateway], echoes: dict[str, EchoBackend]) -> Gateway:
    rollout = {"from": "old", "to": "new", "steps": STEPS, "guardrails": {"quality": {"helpful": {}}}}
    variants = [{"name": "old", "model": "one"}, {"name": "new", "model": "two"}]
    models = [{"id": id, "type": "remote", "base_url": "http://h:1"} for id in echoes]
    routes = [{"id": "r", "variants": variants, "rollout": rollout}]
    return build({"models": models, "routes": routes}, echoes)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(default_url(tmp_path))
    yield opened
    await opened.close()


class Steered:
    """A gateway whose weights rollouts move."""

    def __init__(self, gateway: Gateway, rollouts: Rollouts) -> None:
        self.snapshot = rollouts.steered(gateway.snapshot)
        self._rollouts = rollouts

    def steer(self) -> None:
        self.snapshot = self._rollouts.steered(self.snapshot)

    @property
    def new_share(self) -> float:
        rule = self.snapshot.rules["r"]
        return rule.share(rule.variants[1])


@pytest.fixture
async def rollouts(gateway: Gateway, database: Database) -> Rollouts:
    made = Rollouts(database, "here")
    await made.prepare(gateway.snapshot)
    return made


def split(new: float) -> tuple[tuple[str, float], ...]:
    return (("new", new), ("old", 1 - new))


def record(**fields: Any) -> CallRecord:
    """A call of the new version that was answered."""
    given = {"first_token_s": 1.0, "total_s": 2.0, "hash_point": 0.5, "probability": 0.25, "cache": "MISS"}
    given |= {"shares": split(0.25)} | fields
    return CallRecord(**{"at": 0.0, "request_id": "i", "route": "r", "variant": "new", "model": "two"} | given)


async def test_it_is_pending_without_traffic_and_begins_with_the_first_look(
    gateway: Gateway, rollouts: Rollouts
) -> None:
    at = Steered(gateway, rollouts)
    assert at.new_share == 0
    await rollouts.look(at)
    assert at.new_share == 0.25
    assert (await rollouts.view("r")).controller == "here"


@pytest.mark.parametrize(
    ("call", "counted"),
    [
        (record(), Tally(1, 0)),
        (record(outcome="PEER_FAILED", fault="PEER_FAILED"), Tally(1, 1)),
        (record(answered_by="one", fault="WORKER_DIED"), Tally(1, 1)),  # a fallback answered
        (record(cache="HIT"), Tally()),
        (record(cache="COALESCED"), Tally()),
        (record(outcome="CANCELLED", fault="CANCELLED"), Tally()),
        (record(outcome="INVALID_ARGUMENT", fault="INVALID_ARGUMENT"), Tally()),
        (record(outcome="DEADLINE_EXCEEDED", fault="DEADLINE_EXCEEDED", own_deadline=True), Tally()),
        (record(outcome="DEADLINE_EXCEEDED", fault="DEADLINE_EXCEEDED"), Tally(1, 1)),  # the model's own timeout
        (record(fault="MODEL_LOADING"), Tally()),
        (record(hash_point=None, probability=None), Tally()),  # pinned
        (record(held_out="holdout"), Tally()),
        (record(variant="third"), Tally()),
        (record(shares=split(0.1)), Tally()),  # began at another step
        (record(shares=(("new", 0.2), ("old", 0.6), ("third", 0.2))), Tally(1, 0)),
        (record(route="another"), Tally()),
    ],
)
async def test_only_what_says_something_of_a_version_counts(
    gateway: Gateway, rollouts: Rollouts, call: CallRecord, counted: Tally
) -> None:
    at = Steered(gateway, rollouts)
    await rollouts.look(at)
    rollouts.recorded(call)
    rollouts.recorded(replace(call, variant="old") if call.variant == "new" else record(variant="old"))
    await rollouts.look(at)
    (errors, *_) = (await rollouts.view("r")).evidence
    assert errors.samples_to == counted.calls
    assert errors.difference == 0


async def test_what_came_before_its_step_is_compared_with_nothing(gateway: Gateway, rollouts: Rollouts) -> None:
    """Else what fails at once would be held against answers to calls that began long before."""
    at = Steered(gateway, rollouts)
    rollouts.recorded(record(variant="old", shares=split(0.0)))
    await rollouts.look(at)
    for _ in range(5):
        rollouts.recorded(record(variant="old", shares=split(0.0)))
        rollouts.recorded(record(outcome="PEER_FAILED", fault="PEER_FAILED"))
    await rollouts.look(at)
    (errors, *_) = (await rollouts.view("r")).evidence
    assert (errors.samples_from, errors.samples_to, errors.difference, at.new_share) == (0, 5, 0, 0.25)


@pytest.mark.parametrize(
    ("call", "counted"),
    [
        (record(at=9e9), 1),
        (record(at=0.0), 0),  # of a run before this one
        (record(at=9e9, cache="HIT"), 0),
        (record(at=9e9, answered_by="one", fault="WORKER_DIED"), 0),  # what a fallback said
        (record(at=9e9, shares=split(0.1)), 0),
        (record(at=9e9, hash_point=None), 0),
    ],
)
async def test_ratings_of_answers_at_the_present_step_count(
    gateway: Gateway, rollouts: Rollouts, call: CallRecord, counted: int
) -> None:
    at = Steered(gateway, rollouts)
    await rollouts.look(at)
    rollouts.rated(record(at=9e9, variant="old"), "helpful", 1.0)
    rollouts.rated(call, "another", 0.0)
    rollouts.rated(call, "helpful", 0.0)
    rollouts.rated(replace(call, route="another"), "helpful", 0.0)
    await rollouts.look(at)
    shown = (await rollouts.view("r")).evidence[-1]
    assert (shown.metric, shown.samples_to, shown.difference) == ("feedback.helpful", counted, counted)


async def test_a_call_that_its_deadline_ended_counts_as_a_slow_one(gateway: Gateway, rollouts: Rollouts) -> None:
    at = Steered(gateway, rollouts)
    await rollouts.look(at)
    for _ in range(60):
        rollouts.recorded(record(variant="old"))
        rollouts.recorded(record(outcome="DEADLINE_EXCEEDED", own_deadline=True, first_token_s=0.0, total_s=8.0))
    await rollouts.look(at)
    found = await rollouts.view("r")
    assert found.standing.state is State.ROLLED_BACK
    assert "more slowly" in found.history[-1].reason
    assert at.new_share == 0


async def test_a_model_without_a_healthy_replica_turns_it_back(
    gateway: Gateway, rollouts: Rollouts, echoes: dict[str, EchoBackend]
) -> None:
    at = Steered(gateway, rollouts)
    await rollouts.look(at)
    echoes["two"].state = ModelState.FAILED
    await rollouts.look(at)
    assert at.new_share == 0


async def test_while_the_database_is_away_weights_stay_and_evidence_waits(
    gateway: Gateway, rollouts: Rollouts, database: Database, tmp_path: Path
) -> None:
    at = Steered(gateway, rollouts)
    await rollouts.look(at)
    rollouts.recorded(record())
    rollouts._database = Database(f"sqlite:///{tmp_path}")  # a folder
    with pytest.raises(StateUnavailable):
        await rollouts.look(at)
    assert at.new_share == 0.25
    await rollouts._database.close()
    rollouts._database = database
    rollouts.recorded(record())
    await rollouts.look(at)
    assert (await rollouts.view("r")).evidence[0].samples_to == 2


async def test_what_was_seen_last_is_kept_at_the_end(gateway: Gateway, rollouts: Rollouts, database: Database) -> None:
    at = Steered(gateway, rollouts)
    rollouts.start(at)
    await rollouts.look(at)
    rollouts.recorded(record())
    await rollouts.close()
    after = Rollouts(database, "next")
    await after.prepare(gateway.snapshot)
    assert (await after.view("r")).evidence[0].samples_to == 1
    assert Steered(gateway, after).new_share == 0.25


async def test_an_operator_moves_traffic_at_once(gateway: Gateway, rollouts: Rollouts) -> None:
    at = Steered(gateway, rollouts)
    await rollouts.look(at)
    view = await rollouts.ask(at, "r", Action.PROMOTE, "it is good", "operator")
    assert (view.weight, at.new_share, view.history[-1].reason) == (1.0, 1.0, "it is good")
    with pytest.raises(NotFound, match="`one` has no rollout"):
        await rollouts.ask(at, "one", Action.PAUSE, "", "operator")


async def test_a_route_that_lost_its_rollout_is_followed_no_more(
    gateway: Gateway, rollouts: Rollouts, build: Callable[..., Gateway]
) -> None:
    rule = replace(gateway.snapshot.rules["r"], rollout=None)
    await rollouts.prepare(replace(gateway.snapshot, rules={"r": rule}))
    assert await rollouts.views() == ()
    rollouts.recorded(record())


async def test_where_it_stands_and_how_it_moved_is_told_without_the_database(
    gateway: Gateway, rollouts: Rollouts
) -> None:
    at = Steered(gateway, rollouts)
    (standing,) = rollouts.standings()
    assert (standing.route, standing.state, standing.weight) == ("r", "pending", 0)
    assert set(standing.moves) == {state.name.lower() for state in State}
    await rollouts.look(at)
    await rollouts.look(at)
    await rollouts.ask(at, "r", Action.ROLL_BACK, "as the test wants it", "test")
    await rollouts.prepare(gateway.snapshot)
    (standing,) = rollouts.standings()
    assert (standing.state, standing.weight) == ("rolled_back", 0)
    assert {state: moves for state, moves in standing.moves.items() if moves} == {"running": 1, "rolled_back": 1}
