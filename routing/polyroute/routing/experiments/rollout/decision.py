"""What a rollout does next: a pure function of where it stands, what it has seen, and the time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from polyroute.core.backend import ModelState
from polyroute.core.config import RolloutConfig
from polyroute.core.errors import InvalidArgument
from polyroute.routing.experiments.rollout.evidence import Evidence
from polyroute.routing.experiments.rollout.guardrails import Finding, enough_within, enough_worse, findings


class State(Enum):
    """Where a rollout is; names as in `polyroute.v1.RolloutState`."""

    PENDING = 1
    RUNNING = 2
    PAUSED = 3
    INCONCLUSIVE = 4
    PROMOTED = 5
    ROLLED_BACK = 6

    @property
    def ended(self) -> bool:
        """Whether one version has all traffic, for good."""
        return self in _ENDED


_ENDED: Final = (State.PROMOTED, State.ROLLED_BACK)

_BEGINS: Final = (ModelState.WARM, ModelState.COLD)
"""States of the new version's model in which calls may come to it; one that is cold is loaded for the first."""


class Action(Enum):
    """What an operator may ask for."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a rollout stands: its state, its step from 0, and since when, in seconds of Unix time.

    `samples` is how many calls of the new version had counted when the step began.
    """

    state: State = State.PENDING
    step: int = 0
    since: float = 0.0
    samples: int = 0

    def weight(self, plan: RolloutConfig) -> float:
        """The new version's share of the traffic of both, 0 to 1."""
        if self.state is State.PROMOTED:
            return 1.0
        if self.state in (State.PENDING, State.ROLLED_BACK):
            return 0.0
        return plan.steps[self.place(plan)].weight

    def place(self, plan: RolloutConfig) -> int:
        """The step's place in the plan: the last one where it has fewer, as another router's file may have more."""
        return min(self.step, len(plan.steps) - 1)


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of where a rollout stands, and why, in words."""

    to: Standing
    reason: str


def decide(
    plan: RolloutConfig, standing: Standing, evidence: Evidence, old: ModelState, new: ModelState, now: float
) -> Transition | None:
    """The next transition, or None while there is none to make.

    `old` and `new` are the states of the versions' models, `now` is Unix time in seconds. The new version is stopped
    where it has no healthy replica and the old one has, where it fails again and again, or where it is shown to be
    worse than a guardrail tolerates; also while the rollout is held. It goes on where its step has lasted long
    enough, has seen enough of its calls, and shows it within every guardrail's margin. So without traffic it waits.
    """
    if standing.state.ended:
        return None
    if standing.state is State.PENDING:
        if new not in _BEGINS:
            return None
        weight = plan.steps[0].weight
        return Transition(
            Standing(State.RUNNING, 0, now, evidence.new.calls), f"begins with {weight:.3g} of the traffic"
        )
    back = Standing(State.ROLLED_BACK, standing.step, now, evidence.new.calls)
    if new is ModelState.FAILED and old is not ModelState.FAILED:
        return Transition(back, f"`{plan.to}` has no healthy replica")
    if evidence.stop:
        return Transition(back, f"`{plan.to}`: {evidence.stop}")
    found = tuple(findings(plan, evidence))
    for finding in found:
        if finding.log_worse >= enough_worse(plan):
            return Transition(back, f"`{plan.to}` {finding.worse}")
    return _onwards(plan, standing, evidence, found, now) if standing.state is State.RUNNING else None


def _onwards(
    plan: RolloutConfig, standing: Standing, evidence: Evidence, found: tuple[Finding, ...], now: float
) -> Transition | None:
    step, calls = plan.steps[standing.place(plan)], evidence.new.calls
    seen, lasted_s = calls - standing.samples, now - standing.since
    if seen < step.min_samples or lasted_s < step.hold:
        return None
    undecided = [finding.metric for finding in found if finding.log_within < enough_within(plan)]
    if undecided:
        if lasted_s < plan.undecided_after:
            return None
        stuck = f"{', '.join(undecided)}: neither shown to be worse nor to be within the margin after {seen} answers"
        return Transition(Standing(State.INCONCLUSIVE, standing.step, now, standing.samples), stuck)
    shown = f"within every margin after {seen} answers at {step.weight:.3g} of the traffic"
    if standing.step + 1 < len(plan.steps):
        return Transition(Standing(State.RUNNING, standing.step + 1, now, calls), shown)
    return Transition(Standing(State.PROMOTED, standing.step, now, calls), shown)


def act(
    plan: RolloutConfig, standing: Standing, evidence: Evidence, action: Action, why: str, now: float
) -> Transition:
    """The transition that an operator asks for; raises `InvalidArgument` where it makes no sense there."""
    state, samples = standing.state, evidence.new.calls
    if action is Action.PAUSE and state is State.RUNNING:
        to = Standing(State.PAUSED, standing.step, now, standing.samples)
    elif action is Action.RESUME and state in (State.PAUSED, State.INCONCLUSIVE):
        to = Standing(State.RUNNING, standing.step, now, samples)
    elif action is Action.PROMOTE and not state.ended:
        to = Standing(State.PROMOTED, len(plan.steps) - 1, now, samples)
    elif action is Action.ROLL_BACK and state is not State.ROLLED_BACK:
        to = Standing(State.ROLLED_BACK, standing.step, now, samples)
    else:
        stands = state.name.lower().replace("_", " ")
        raise InvalidArgument("route", f"cannot {action.value} this rollout: it is {stands}")
    return Transition(to, why or f"an operator asked to {action.value}")


def follow(plan: RolloutConfig, standing: Standing, weight: float, now: float) -> Transition | None:
    """The transition to steps that have changed while the rollout was at `weight`; None where it is there already.

    It goes on at the first step that has at least this weight, so nobody is moved back, or else at the last one.
    """
    if standing.state.ended or standing.state is State.PENDING:
        return None
    step = next((i for i, each in enumerate(plan.steps) if each.weight >= weight), len(plan.steps) - 1)
    if plan.steps[step].weight == weight and step == standing.step:
        return None
    return Transition(Standing(standing.state, step, now, standing.samples), "the steps have changed")
