"""Rollouts on a whole server: traffic moves, turns back, waits for an operator, and outlives the server."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.client.admin import AdminClient
from polyroute.client.enums import RolloutState
from polyroute.client.operations import Rollout
from polyroute.core.config import RouteConfig
from polyroute.core.errors import PeerFailed, StateUnavailable
from polyroute.server.config_source import ConfigSource
from polyroute.v1 import admin_pb2, inference_pb2, models_pb2
from tests.integration.grpc_serving import WAIT_S, Serving, refused, serving, settings_for

QUICK = [{"weight": "10%", "hold": "1ms", "min_samples": 5}, {"weight": "50%", "hold": "1ms", "min_samples": 5}]
EASY = {"errors": {"margin": "60%", "tolerance": "5%"}, "first_token": "off", "duration": "off"}
FAILING = Script(error=PeerFailed("broken on purpose"))


def route(**rollout: Any) -> RouteConfig:
    keys = {"from": "old", "to": "new", "steps": QUICK, "guardrails": EASY} | rollout
    variants = [{"name": "old", "model": "one"}, {"name": "new", "model": "two"}]
    return RouteConfig.model_validate({"id": "r", "variants": variants, "rollout": keys})


def two() -> tuple[EchoBackend, EchoBackend]:
    return EchoBackend("one"), EchoBackend("two")


def settings(folder: Path, *backends: EchoBackend, **rollout: Any) -> Any:
    chosen = settings_for(*backends, folder=folder, routes=(route(**rollout),))
    return replace(chosen, state_url=f"sqlite:///{folder / 'state.db'}")


async def call(at: Serving, user: str, request_id: str = "") -> str:
    """The variant that a user's call falls to, whether it is answered or not."""
    request = inference_pb2.GenerateRequest(model="r", prompt="hello", routing={"user": user}, request_id=request_id)
    try:
        return (await at.inference.Generate(request, timeout=WAIT_S)).route.variant
    except grpc.aio.AioRpcError:
        return "new"


async def variants(at: Serving, users: int = 200) -> dict[str, str]:
    """Where each user's calls would go."""
    found = {}
    for user in range(users):
        request = inference_pb2.GenerateRequest(model="r", prompt="hello", routing={"user": f"{user}"})
        plan = await at.models.ExplainRoute(models_pb2.ExplainRouteRequest(request=request))
        found[f"{user}"] = plan.attempts[0].variant
    return found


async def begun(at: Serving, admin: AdminClient) -> Rollout:
    """The rollout once it is at a step."""
    async with asyncio.timeout(WAIT_S):
        while (found := await admin.rollout("r")).state is RolloutState.PENDING:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.05)
    return await in_force(at, found)


async def in_force(at: Serving, found: Rollout) -> Rollout:
    """The rollout, once traffic is split by it: what is kept comes into force right after."""
    async with asyncio.timeout(WAIT_S):
        while abs(new_share(at) - found.weight) > 1e-9:  # noqa: ASYNC110 - a number
            await asyncio.sleep(0.01)
    return found


def new_share(at: Serving) -> float:
    rule = at.server.gateway.snapshot.rules["r"]
    return rule.share(rule.variants[1])


async def calls_until(at: Serving, done: Callable[[Rollout], bool]) -> Rollout:
    """Calls of ever new users until the rollout is as it should be."""
    async with AdminClient(str(at.server.admin_address)) as admin, asyncio.timeout(WAIT_S):
        for user in range(1_000_000):
            await call(at, f"someone {user}")
            if user % 20 == 0:
                found = await admin.rollout("r")
                if done(found):
                    return await in_force(at, found)
    raise AssertionError("calls do not end")


async def test_a_healthy_version_gets_all_traffic_step_by_step(tmp_path: Path) -> None:
    old, new = two()
    async with serving(old, new, folder=tmp_path, settings=settings(tmp_path, old, new)) as at:
        found = await calls_until(at, lambda rollout: rollout.state is RolloutState.PROMOTED)
        assert set((await variants(at)).values()) == {"new"}
    assert [change.to_state for change in found.history] == [
        *(RolloutState.PENDING, RolloutState.RUNNING, RolloutState.RUNNING, RolloutState.PROMOTED)
    ]
    assert (found.weight, found.step) == (1.0, 1)
    errors = found.history[-1].evidence[0]
    assert (errors.metric, errors.difference) == ("errors", 0)
    assert errors.samples_to >= 10
    assert -1 < errors.lower < 0 < errors.upper < 0.6


async def test_a_version_that_fails_is_stopped_after_a_few_calls(tmp_path: Path) -> None:
    old, new = two()
    new.script = FAILING
    async with serving(old, new, folder=tmp_path, settings=settings(tmp_path, old, new)) as at:
        found = await calls_until(at, lambda rollout: rollout.state is RolloutState.ROLLED_BACK)
        assert set((await variants(at)).values()) == {"old"}
    assert found.weight == 0
    assert "5 calls in a row failed, while the old version answered" in found.history[-1].reason
    assert new.failed < 50


async def test_a_version_that_callers_like_less_turns_back(tmp_path: Path) -> None:
    old, new = two()
    rails = {"errors": "off", "first_token": "off", "duration": "off", "quality": {"helpful": {}}}
    steps = [{"weight": "50%", "hold": "1h"}]
    chosen = settings(tmp_path, old, new, steps=steps, guardrails=rails)
    async with (
        serving(old, new, folder=tmp_path, settings=chosen) as at,
        AdminClient(str(at.server.admin_address)) as admin,
    ):
        await begun(at, admin)
        for user in range(200):
            variant = await call(at, f"{user}", request_id=f"call-{user}")
            given = inference_pb2.RecordFeedbackRequest(
                request_id=f"call-{user}", metric="helpful", bool_value=variant == "old"
            )
            assert (await at.inference.RecordFeedback(given, timeout=WAIT_S)).matched
            if (found := await admin.rollout("r")).state is RolloutState.ROLLED_BACK:
                break
    assert found.state is RolloutState.ROLLED_BACK
    assert "has lower ratings more often by `feedback.helpful`" in found.history[-1].reason
    assert 0 < found.history[-1].evidence[0].samples_to < 100


async def test_without_traffic_it_waits_at_its_first_step(tmp_path: Path) -> None:
    old, new = two()
    async with serving(old, new, folder=tmp_path, settings=settings(tmp_path, old, new)) as at:
        async with AdminClient(str(at.server.admin_address)) as admin:
            found = await begun(at, admin)
            shares = Counter((await variants(at)).values())
        assert (found.state, found.step, found.weight) == (RolloutState.RUNNING, 0, 0.1)
        assert 0 < shares["new"] < 60
        assert found.controller


async def test_an_operator_holds_it_lets_it_go_on_and_ends_it(tmp_path: Path) -> None:
    old, new = two()
    slow = [{"weight": "10%", "hold": "1h"}]
    async with (
        serving(old, new, folder=tmp_path, settings=settings(tmp_path, old, new, steps=slow)) as at,
        AdminClient(str(at.server.admin_address)) as admin,
    ):
        await begun(at, admin)
        before = await variants(at)
        paused = await admin.pause_rollout("r", reason="it is Friday")
        assert (paused.state, paused.history[-1].reason) == (RolloutState.PAUSED, "it is Friday")
        assert paused.history[-1].actor == "operator"
        shown = (await at.models.GetModel(models_pb2.GetModelRequest(model="r"))).model.rollout
        assert (shown.to, shown.weight, shown.held) == ("new", 0.1, True)
        listed = (await at.models.ListModels(models_pb2.ListModelsRequest())).models
        assert [model.id for model in listed if model.HasField("rollout")] == ["r"]
        assert await variants(at) == before
        assert (await admin.resume_rollout("r")).state is RolloutState.RUNNING
        assert (await admin.promote_rollout("r")).state is RolloutState.PROMOTED
        assert set((await variants(at)).values()) == {"new"}
        assert (await admin.roll_back_rollout("r")).state is RolloutState.ROLLED_BACK
        assert set((await variants(at)).values()) == {"old"}
        again = await refused(at.admin.RollBackRollout(admin_pb2.RollBackRolloutRequest(route="r")))
        assert (again.field, again.code) == ("route", grpc.StatusCode.INVALID_ARGUMENT)
        assert "it is rolled back" in again.message
        assert [each.route async for each in admin.rollouts()] == ["r"]


@pytest.mark.parametrize("name", ["one", "nothing"])
async def test_what_has_no_rollout_is_not_found(tmp_path: Path, name: str) -> None:
    old, new = two()
    async with serving(old, new, folder=tmp_path, settings=settings(tmp_path, old, new)) as at:
        found = await refused(at.admin.GetRollout(admin_pb2.GetRolloutRequest(route=name)))
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        empty = await refused(at.admin.PauseRollout(admin_pb2.PauseRolloutRequest()))
        assert empty.field == "route"


async def test_it_goes_on_where_it_was_when_the_server_comes_back(tmp_path: Path) -> None:
    old, new = two()
    long = [{"weight": "30%", "hold": "1h"}]
    async with serving(old, new, folder=tmp_path, settings=settings(tmp_path, old, new, steps=long)) as at:
        before = await calls_until(at, lambda rollout: bool(rollout.evidence and rollout.evidence[0].samples_to > 5))
        where = await variants(at)
    async with serving(old, new, folder=tmp_path, settings=settings(tmp_path, old, new, steps=long)) as at:
        assert await variants(at) == where  # from the first call on
        async with AdminClient(str(at.server.admin_address)) as admin:
            after = await admin.rollout("r")
    assert (after.state, after.step, after.weight) == (before.state, before.step, before.weight)
    assert after.evidence[0].samples_to >= before.evidence[0].samples_to
    assert after.history == before.history


async def test_without_the_state_database_nothing_is_served_that_could_move_anyone(tmp_path: Path) -> None:
    old, new = two()
    chosen = replace(settings(tmp_path, old, new), state_url=f"sqlite:///{tmp_path}")
    with pytest.raises(StateUnavailable, match="unable to open database file"):
        async with serving(old, new, folder=tmp_path, settings=chosen):
            pass


async def test_a_reload_changes_its_steps_and_moves_nobody_back(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"

    def write(*weights: float, **more: Any) -> None:
        steps = [{"weight": weight, "hold": "1h"} for weight in weights]
        variants = [{"name": "old", "model": "one"}, {"name": "new", "model": "two"}]
        rollout = {"from": "old", "to": "new", "steps": steps} | more
        models = [{"id": id, "type": "remote", "base_url": "http://127.0.0.1:9"} for id in ("one", "two")]
        file.write_text(
            json.dumps({"models": models, "routes": [{"id": "r", "variants": variants, "rollout": rollout}]})
        )

    write(0.2, 0.5)
    old, new = two()
    source = ConfigSource(file)
    chosen = replace(settings(tmp_path, old, new), config=source.read({}), source=source, watch=False)
    async with (
        serving(old, new, folder=tmp_path, settings=chosen) as at,
        AdminClient(str(at.server.admin_address)) as admin,
    ):
        await begun(at, admin)
        before = await variants(at)
        write(0.1, 0.4)
        assert (await admin.reload()).changed
        after = await variants(at)
        assert {(before[user], after[user]) for user in before if before[user] != after[user]} == {("old", "new")}
        found = await admin.rollout("r")
        assert (found.step, found.weight, found.history[-1].reason) == (1, 0.4, "the steps have changed")
        await admin.roll_back_rollout("r")
        write(0.1, 0.4, run=2)
        await admin.reload()
        assert (await begun(at, admin)).weight == 0.1
