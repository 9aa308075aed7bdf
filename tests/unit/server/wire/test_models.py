"""Models and plans reach the wire with every field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from polyroute.core.backend import BackendStatus, ModelState, ReplicaStatus
from polyroute.core.request import Sampling
from polyroute.routing.views import (
    ModelView,
    Plan,
    PlannedAttempt,
    PlannedShadow,
    RolloutStanding,
    VariantView,
)
from polyroute.server.wire.models import model_to_wire, plan_to_wire
from polyroute.v1 import models_pb2 as pb

VIEW = ModelView(
    id="m",
    type="route",
    status=BackendStatus(
        ModelState.WARM,
        "fine",
        "v1",
        99,
        ready_since=1.5,
        defaults=Sampling(9, 0.5, 0.9, 40, 0.1, 1.1),
        replicas=(ReplicaStatus("r", ModelState.FAILED, "bad", 1, "v0", 0.5, "open", 2),),
    ),
    in_flight=1,
    queued=2,
    max_concurrency=3,
    max_queue=4,
    default=True,
    variants=(VariantView("a", "x", 0.5),),
    fallback=("y",),
)
ROLLOUT = RolloutStanding("m", "paused", 0.25, {}, "new")
PLAN = Plan(
    "r",
    (PlannedAttempt("d", "m", "v", ModelState.COLD, "a", True, "kept", "r1", "it is idle"),),
    (PlannedShadow("s", 0.25),),
    ("why",),
    "user",
    0.0,
    0.5,
)


def unset(message: Any) -> list[str]:
    """Fields of ours, however deep, that are not set."""
    present = {field.name for field, _ in message.ListFields()}
    missing = [field.name for field in message.DESCRIPTOR.fields if field.name not in present]
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.full_name.startswith("polyroute."):
            missing += [f"{field.name}.{name}" for name in unset(value[0] if field.is_repeated else value)]
    return missing


@pytest.mark.parametrize("message", [model_to_wire(VIEW, ROLLOUT), plan_to_wire(PLAN)])
def test_no_field_is_left_empty(message: Any) -> None:
    assert unset(message) == []


def test_states_and_types_have_the_same_names() -> None:
    assert {f"MODEL_STATE_{one.name}": one.value for one in ModelState} == dict(pb.ModelState.items())
    assert model_to_wire(VIEW).type == pb.MODEL_TYPE_ROUTE


def test_what_is_not_known_is_absent() -> None:
    model = model_to_wire(ModelView("m", "local", BackendStatus(ModelState.LOADING)))
    assert not model.HasField("ready_since")
    assert not plan_to_wire(Plan("r", ())).HasField("hash_point")


def test_a_rollout_that_is_over_is_told_no_more() -> None:
    assert model_to_wire(VIEW, replace(ROLLOUT, state="running")).rollout.held is False
    assert model_to_wire(VIEW, ROLLOUT).rollout.held is True
    for state in ("promoted", "rolled_back"):
        assert not model_to_wire(VIEW, replace(ROLLOUT, state=state)).HasField("rollout")


def test_what_a_model_does_by_itself_is_left_out_where_it_is_not_known() -> None:
    assert not model_to_wire(ModelView("m", "remote", BackendStatus(ModelState.WARM))).HasField("sampling_defaults")
    greedy = model_to_wire(ModelView("m", "local", BackendStatus(ModelState.WARM, defaults=Sampling(temperature=0.0))))
    assert greedy.sampling_defaults.HasField("temperature")
    assert not greedy.sampling_defaults.HasField("max_tokens")
