"""Rollouts as `polyroute.v1` messages."""

from __future__ import annotations

from typing import Final

from polyroute.routing.experiments.rollout.decision import State
from polyroute.routing.experiments.rollout.view import Change, RolloutView, Shown
from polyroute.server.wire.values import duration, timestamp
from polyroute.v1 import admin_pb2 as pb

_STATES: Final = {
    State.PENDING: pb.ROLLOUT_STATE_PENDING,
    State.RUNNING: pb.ROLLOUT_STATE_RUNNING,
    State.PAUSED: pb.ROLLOUT_STATE_PAUSED,
    State.INCONCLUSIVE: pb.ROLLOUT_STATE_INCONCLUSIVE,
    State.PROMOTED: pb.ROLLOUT_STATE_PROMOTED,
    State.ROLLED_BACK: pb.ROLLOUT_STATE_ROLLED_BACK,
}


def rollout_to_wire(view: RolloutView) -> pb.Rollout:
    """A rollout as it stands, with its history."""
    rollout = pb.Rollout(
        route=view.route,
        to=view.plan.to,
        state=_STATES[view.standing.state],
        step=view.standing.step,
        steps=[
            pb.RolloutStep(weight=step.weight, hold=duration(step.hold), min_samples=step.min_samples)
            for step in view.plan.steps
        ],
        weight=view.weight,
        evidence=map(_evidence, view.evidence),
        history=map(_change, view.history),
        controller=view.controller,
    )
    setattr(rollout, "from", view.plan.from_)  # a keyword, so no argument can have this name
    return rollout


def _change(change: Change) -> pb.RolloutTransition:
    transition = pb.RolloutTransition(
        time=timestamp(change.at),
        to=_STATES[change.after],
        step=change.step,
        reason=change.reason,
        actor=change.actor,
        evidence=map(_evidence, change.evidence),
    )
    setattr(transition, "from", _STATES[change.before])
    return transition


def _evidence(shown: Shown) -> pb.Evidence:
    return pb.Evidence(
        metric=shown.metric,
        difference=shown.difference,
        lower=shown.lower,
        upper=shown.upper,
        e_value=shown.e_value,
        samples_from=shown.samples_from,
        samples_to=shown.samples_to,
    )
